"""Run the arms of an ablation over seeds, and compare them."""
