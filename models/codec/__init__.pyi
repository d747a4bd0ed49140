from .base import Codec, load_codec
from .weights import CodecError

__all__ = ["Codec", "CodecError", "load_codec"]
