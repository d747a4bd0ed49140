"""The scores that reranking weighs, one file each; `registry.py` lists them."""
