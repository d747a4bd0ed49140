"""The decoder score (arXiv 2309.17352): how likely the captioner finds its own caption."""

from __future__ import annotations

import numpy as np

from .base import Score, ScoringContext

DECODER = "decoder_score"


class DecoderScore(Score):
    """The mean log-likelihood of a token; the best of the captioners that propose the text."""

    name = "decoder"

    def values(self, context: ScoringContext) -> np.ndarray:
        return np.array([candidate.decoder_score for candidate in context.candidates])
