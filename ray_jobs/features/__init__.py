"""Compute the features of clips with Ray Data, and read and write the files that hold them."""
