"""Which clips make a batch: of similar length, and of corpora in their shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

BUCKET_BATCHES = 8  # clips are sorted by length within so many batches: little padding, still well mixed


def bucketed_batches(
    lengths: Sequence[float], batch_size: int, rng: np.random.Generator, rank: int = 0, world: int = 1
) -> Iterator[np.ndarray]:
    """Shuffled batches of clips of similar length; each worker gets every world-th row of every global batch.

    The last, incomplete batch is left out, so that all workers make equally many steps; a split smaller than a batch is
    one batch of all that divides evenly.
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
    """The share of padding in a batch of clips of `lengths` [B], all padded to the longest."""
    return 1 - lengths.float().mean() / lengths.max()


def draw_by_weight(origins: np.ndarray, weights: list[float], rng: np.random.Generator) -> np.ndarray:
    """As many rows as there are, of each origin in proportion to its weight.

    Args:
        origins: [rows], the origin of each row, from 0 on.
        weights: of each origin.

    Returns:
        Row numbers: no row of an origin comes a second time before all of its rows came once.
    """
    shares = len(origins) * np.asarray(weights) / np.sum(weights)
    ends = np.round(np.cumsum(shares)).astype(int)
    drawn = []
    for origin, number in enumerate(np.diff(ends, prepend=0)):
        rows = np.flatnonzero(origins == origin)
        rounds = -(-number // len(rows)) if len(rows) else 0
        drawn.append(np.concatenate([np.zeros(0, int), *(rng.permutation(rows) for _ in range(rounds))])[:number])
    return np.concatenate(drawn)
