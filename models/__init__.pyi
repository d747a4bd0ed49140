from .ensemble import Caption, Ensemble, ScoredCandidate

__version__: str
__all__ = ["Caption", "Ensemble", "ScoredCandidate"]
