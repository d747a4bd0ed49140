"""A run: its directory, lock, storage, log, terminal and Ray session."""
