from .model import Retriever

__all__ = ["Retriever"]
