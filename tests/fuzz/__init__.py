"""Damaged and odd input at every door: files are mutated at random, and are used, or refused by name."""
