"""Read audio files for an exported ensemble, resumably."""
