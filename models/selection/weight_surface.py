"""The surface of a mean value over settings, and which settings the clips cannot tell from the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .weight_search import chosen_values

MAX_RESAMPLED_MEANS = 1 << 22  # settings times resamples held at a time: 32 MiB
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0)  # of fluency_error; 1 filters nothing


@dataclass(frozen=True)
class Behind:
    """By how much the best of W settings exceeds each of them, with 95 % intervals over resampled clips."""

    best: int
    delta: np.ndarray  # [W]
    low: np.ndarray  # [W]
    high: np.ndarray  # [W]

    @property
    def tied_with_best(self) -> np.ndarray:
        """Return [W] bool: the interval of the difference includes 0."""
        return self.low <= 0


def behind_best(values: np.ndarray, resamples: int = 1000, seed: int = 0) -> Behind:
    """Compare every setting with the best by a paired bootstrap, all on the same resamples of the clips.

    Args:
        values: [W, C].
    """
    settings, clips = values.shape
    best = int(values.mean(1).argmax())
    drawn = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), size=resamples) / clips
    difference = values[best] - values
    low, high = np.empty(settings), np.empty(settings)
    rows = max(1, MAX_RESAMPLED_MEANS // resamples)
    for first in range(0, settings, rows):
        block = slice(first, first + rows)
        low[block], high[block] = np.percentile(difference[block] @ drawn.T, [2.5, 97.5], axis=1)
    return Behind(best, difference.mean(1), low, high)


def reranking_surface(
    scores: np.ndarray, allowed: Sequence[np.ndarray], value: np.ndarray, encoder_weights: np.ndarray
) -> np.ndarray:
    """Return the value [T, W, C] of each clip's choice under each of T fluency filters and encoder weight [W].

    Args:
        scores: [2, C, K] of encoder and decoder; the decoder's weight is 1 minus the encoder's.
        allowed: for each filter [C, K] bool, as `allowed_candidates` gives it.
        value: [C, K].
    """
    weightings = np.stack([encoder_weights, 1 - encoder_weights], 1)
    return np.stack([chosen_values(scores, one, value, weightings) for one in allowed])
