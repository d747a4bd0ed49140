from .ensemble import Caption, Ensemble, Match, ScoredCandidate, TimedCaption, Timeline, Where

__version__: str
__all__ = ["Caption", "Ensemble", "Match", "ScoredCandidate", "TimedCaption", "Timeline", "Where"]
