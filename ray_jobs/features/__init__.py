"""Features of clips: the files that hold them, and the Ray Data stages that make them."""
