"""Search sampling, reranking and retrieval weights and training settings with Ray Tune."""
