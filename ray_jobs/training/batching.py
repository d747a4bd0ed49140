"""Draw batches of clips of similar length, and epochs of corpora in given shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

BUCKET_BATCHES = 8  # batches within which clips are sorted by length: little padding, still well mixed


def bucketed_batches(
    lengths: Sequence[float], batch_size: int, rng: np.random.Generator, rank: int = 0, world: int = 1
) -> Iterator[np.ndarray]:
    """Yield shuffled batches of clips of similar length; each worker gets every world-th row of every global batch.

    The last, incomplete batch is left out, so that all workers make the same number of steps; a split smaller than a
    batch is one batch of the largest size that divides evenly.
    """
    order = rng.permutation(len(lengths))
    window = batch_size * BUCKET_BATCHES
    by_length = np.concatenate(
        [sorted(order[at : at + window], key=lambda row: lengths[row]) for at in range(0, len(order), window)]
    )
    size = min(batch_size, len(order) // world * world)
    starts = np.arange(0, len(order) - size + 1, size)
    for start in rng.permutation(starts):
        yield by_length[start : start + size][rank::world]


def padding_share(lengths: Tensor) -> Tensor:
    """Return the share of padding in a batch of clips of `lengths` [B], all padded to the longest."""
    return 1 - lengths.float().mean() / lengths.max()


def draw_by_weight(origins: np.ndarray, weights: list[float], rng: np.random.Generator) -> np.ndarray:
    """Draw as many rows as there are, from each origin in proportion to its weight.

    Args:
        origins: [rows], the origin of each row, from 0 on.
        weights: of each origin.

    Returns:
        Row numbers [rows]; no row of an origin is drawn twice before all of its rows are drawn once.
    """
    shares = len(origins) * np.asarray(weights) / np.sum(weights)
    ends = np.round(np.cumsum(shares)).astype(int)
    drawn = []
    for origin, number in enumerate(np.diff(ends, prepend=0)):
        rows = np.flatnonzero(origins == origin)
        rounds = -(-number // len(rows)) if len(rows) else 0
        drawn.append(np.concatenate([np.zeros(0, int), *(rng.permutation(rows) for _ in range(rounds))])[:number])
    return np.concatenate(drawn)
