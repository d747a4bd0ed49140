"""The commands that use a bundle, without Ray: caption, retrieve and index audio files."""
