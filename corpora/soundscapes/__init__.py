"""The built-in synthetic corpus: scenes of sounds, rendered from a seed and described by a grammar."""
