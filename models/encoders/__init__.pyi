from .audio import AudioEncoder
from .log_mel import LogMel
from .text import TextEncoder

__all__ = ["AudioEncoder", "LogMel", "TextEncoder"]
