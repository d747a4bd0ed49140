"""Compare the similarities of matched and mismatched pairs of text and audio, and look for hubs among the clips.

A hub is a clip that is among the nearest of far more texts than others, an anti-hub one that is among those of none
(Radovanovic et al. 2010, "Hubs in Space"). Similarities come in blocks of texts, so that the matrix is never held.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import skew

FINE_BINS = 4096
BINS = 64  # of the histograms that are shown, at most
NEAREST = 10  # of which a text's hubs are counted


class PairStatistics:
    """What is known of the similarities of Q texts, each of which describes one of N clips."""

    def __init__(
        self, matched: np.ndarray, target: np.ndarray, clips: int, lowest: float, highest: float = 0.0
    ) -> None:
        """Take the similarities of all matched pairs.

        Args:
            matched: [Q], of each text with its clip.
            target: [Q] int, the clip of each text.
            clips: N, two or more.
            lowest, highest: bounds of all similarities; others count at the bounds of the histograms.
        """
        self.matched, self.target, self.clips = matched.astype(np.float64), target, clips
        self.nearest = min(NEAREST, clips - 1)
        self.occurrences = np.zeros(clips, np.int64)  # of a clip, among the nearest of a text
        self._sorted = np.sort(matched)
        self._edges = np.linspace(lowest, highest, FINE_BINS + 1)
        self._bins = np.zeros(FINE_BINS, np.int64)
        self._above = self._of_query = self._sum = self._squares = 0.0

    def add(self, start: int, block: np.ndarray) -> None:
        """Count the similarities [rows, N] of the texts from `start` on."""
        rows = np.arange(len(block))
        own = self.target[start : start + len(block)]
        nearest = np.argpartition(-block, self.nearest - 1, axis=1)[:, : self.nearest]
        self.occurrences += np.bincount(nearest.ravel(), minlength=self.clips)
        others = np.ones(block.shape, bool)
        others[rows, own] = False
        mismatched = block[others]
        self._of_query += _shares_below(block, block[rows, own]).sum()
        low, high = (np.searchsorted(self._sorted, mismatched, side) for side in ("left", "right"))
        self._above += float(2 * len(self._sorted) * len(mismatched) - low.sum() - high.sum()) / 2
        self._bins += self._counts(mismatched)
        self._sum += float(mismatched.sum(dtype=np.float64))
        self._squares += float(np.square(mismatched, dtype=np.float64).sum())

    @property
    def auc(self) -> float:
        """Return the chance that a matched pair is more similar than a mismatched one, both drawn from all pairs."""
        return self._above / (len(self.matched) * self._others)

    @property
    def auc_of_query(self) -> float:
        """Return the same for two pairs of one text: what ranking needs, which compares no texts with each other."""
        return float(self._of_query) / len(self.matched)

    @property
    def mismatched_mean(self) -> float:
        """Return the mean similarity of mismatched pairs."""
        return self._sum / self._others

    @property
    def mismatched_deviation(self) -> float:
        """Return the standard deviation of the similarities of mismatched pairs."""
        return float(np.sqrt(max(0.0, self._squares / self._others - self.mismatched_mean**2)))

    @property
    def hub_skewness(self) -> float:
        """Return the skewness of how often clips are among the nearest: near 0 without hubs, NaN if all are alike."""
        return float(skew(self.occurrences))

    @property
    def anti_hubs(self) -> float:
        """Return the share of clips that are among the nearest of no text."""
        return float((self.occurrences == 0).mean())

    def histograms(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the edges [B + 1] of equal bins over all that occurs, and the counts of both kinds of pairs [B]."""
        both = np.stack([self._counts(self.matched), self._bins])
        there = np.flatnonzero(both.sum(0))
        first, width = there[0], -(-(there[-1] + 1 - there[0]) // BINS)
        starts = np.arange(first, there[-1] + 1, width)
        ends = np.minimum(np.append(starts, starts[-1] + width), FINE_BINS)
        matched, mismatched = np.add.reduceat(both, starts, axis=1)
        return self._edges[ends], matched, mismatched

    @property
    def _others(self) -> int:
        return len(self.matched) * (self.clips - 1)

    def _counts(self, values: np.ndarray) -> np.ndarray:
        within = np.clip(values, self._edges[0], self._edges[-1])
        return np.histogram(within, self._edges)[0]


def _shares_below(block: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return the share of the other clips that are less similar to each text than its own, ties as a half, [rows]."""
    above = np.count_nonzero(block > own[:, None], axis=1)
    level = np.count_nonzero(block == own[:, None], axis=1) - 1  # without itself
    shares: np.ndarray = 1 - (above + level / 2) / (block.shape[1] - 1)
    return shares
