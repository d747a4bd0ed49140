from .detector import FluencyDetector

__all__ = ["FluencyDetector"]
