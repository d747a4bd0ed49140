from .bundle import Ensemble
from .captions import Caption, ScoredCandidate
from .filters import Where
from .index_search import Match
from .reranking import Reranking
from .retrieval_fusion import RetrievalFusion
from .timeline import TimedCaption, Timeline

__all__ = [
    "Caption",
    "Ensemble",
    "Match",
    "Reranking",
    "RetrievalFusion",
    "ScoredCandidate",
    "TimedCaption",
    "Timeline",
    "Where",
]
