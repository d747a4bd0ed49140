from .ensemble import Caption, Ensemble, ScoredCandidate, TimedCaption, Timeline

__version__: str
__all__ = ["Caption", "Ensemble", "ScoredCandidate", "TimedCaption", "Timeline"]
