from .bootstrap import paired_bootstrap
from .captions import caption_values
from .retrieval import retrieval_values

__all__ = ["caption_values", "paired_bootstrap", "retrieval_values"]
