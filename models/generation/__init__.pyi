from .candidates import Candidate, ClipInputs, Decoding, beam_search, propose

__all__ = ["Candidate", "ClipInputs", "Decoding", "beam_search", "propose"]
