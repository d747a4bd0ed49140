from .cross_validation import cross_validate
from .reranking_weights import search_reranking
from .retrieval_weights import search_retrieval

__all__ = ["cross_validate", "search_reranking", "search_retrieval"]
