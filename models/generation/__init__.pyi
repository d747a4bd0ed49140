from .candidates import Candidate, beam_search, propose

__all__ = ["Candidate", "beam_search", "propose"]
