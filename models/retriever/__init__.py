"""Retrievers: audio and text embeddings under a learned metric (m-LTM)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
