"""How long a candidate is: captions that are sampled by their likelihood are often too short."""

from __future__ import annotations

import numpy as np

from .base import Score, ScoringContext


class LengthScore(Score):
    """The number of tokens, EOS counted."""

    name = "length"
    either_sign = True

    def values(self, context: ScoringContext) -> np.ndarray:
        return np.array([float(candidate.tokens) for candidate in context.candidates])
