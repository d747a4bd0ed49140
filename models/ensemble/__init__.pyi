from .bundle import Ensemble
from .captions import Caption, ScoredCandidate
from .reranking import Reranking
from .retrieval_fusion import RetrievalFusion
from .timeline import TimedCaption, Timeline

__all__ = ["Caption", "Ensemble", "Reranking", "RetrievalFusion", "ScoredCandidate", "TimedCaption", "Timeline"]
