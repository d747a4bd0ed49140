from .bundle import Caption, Ensemble, ScoredCandidate
from .reranking import Reranking
from .retrieval_fusion import RetrievalFusion

__all__ = ["Caption", "Ensemble", "Reranking", "RetrievalFusion", "ScoredCandidate"]
