"""Learn how to choose: reranking and retrieval weights, cross-validation, what each member adds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
