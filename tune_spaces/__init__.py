"""The search spaces: what may vary, between which bounds. Declarations only."""
