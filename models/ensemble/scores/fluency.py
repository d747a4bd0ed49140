"""How sound the fluency detector finds a candidate: a score beside the filter, which only knows yes and no."""

from __future__ import annotations

import numpy as np

from .base import Score, ScoringContext

FLUENCY = "fluency_score"


class FluencyScore(Score):
    """The negative probability that the text is damaged, from -1 to 0; 0 without a detector."""

    name = "fluency"

    def values(self, context: ScoringContext) -> np.ndarray:
        return 0.0 - context.fluency_error
