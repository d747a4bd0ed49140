"""Rank clips for captions and captions for clips, to evaluate an exported ensemble."""
