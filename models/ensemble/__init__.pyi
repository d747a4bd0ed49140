from .bundle import Caption, Ensemble
from .reranking import Reranking
from .retrieval_fusion import RetrievalFusion

__all__ = ["Caption", "Ensemble", "Reranking", "RetrievalFusion"]
