"""The ensemble in use: choose among candidates, fuse retrievers, load and run an exported bundle."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
