"""Look for what is on this machine, and compare it with what an experiment needs. No network, no Ray."""
