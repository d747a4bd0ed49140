from .candidates import Candidate, Decoding, beam_search
from .proposals import ClipInputs, Proposals, propose

__all__ = ["Candidate", "ClipInputs", "Decoding", "Proposals", "beam_search", "propose"]
