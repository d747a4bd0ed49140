"""Read audio files for an exported ensemble, go on after interruptions, print the results."""
