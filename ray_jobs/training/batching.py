"""Order the clips of an epoch and draw batches of similar length, and epochs of corpora in given shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

BUCKET_BATCHES = 16  # batches within which clips are sorted by length: little padding, still well mixed


def shuffle_in_windows(shards: np.ndarray, window: int, rng: np.random.Generator) -> np.ndarray:
    """Shuffle the rows of an epoch so that they are nearly read file by file.

    The shards are shuffled, and within each `window` consecutive rows, which are of a few shards, the rows. A disk or
    store then reads few files at a time, each once in an epoch; up to `window` rows are shuffled freely.

    Args:
        shards: [rows], the number of the shard of each row.

    Returns:
        A permutation of the rows, [rows]; the same for the same `rng`, whatever the number of workers.
    """
    _, shard = np.unique(shards, return_inverse=True)
    by_shard = np.argsort(rng.permutation(shard.max(initial=0) + 1)[shard], kind="stable")
    return by_shard[np.lexsort((rng.random(len(shards)), np.arange(len(shards)) // window))]


def times_before(rows: np.ndarray) -> np.ndarray:
    """Count, for each item of rows [N], how often the same row comes before it."""
    order = np.argsort(rows, kind="stable")
    _, first, counts = np.unique(rows[order], return_index=True, return_counts=True)
    times = np.empty(len(rows), int)
    times[order] = np.arange(len(rows)) - np.repeat(first, counts)
    return times


def bucketed_batches(
    lengths: Sequence[float] | np.ndarray, batch_size: int, rng: np.random.Generator, rank: int = 0, world: int = 1
) -> Iterator[np.ndarray]:
    """Yield batches of rows of similar length; each worker gets every world-th row of every global batch.

    Rows are taken in the order that they have, which is to be random, and sorted by length among `BUCKET_BATCHES`
    batches, whose order then is random. The last, incomplete batch is left out, so that all workers make the same
    number of steps; fewer rows than a batch are one batch of the largest size that divides evenly.
    """
    size = min(batch_size, len(lengths) // world * world)
    batches = len(lengths) // size if size else 0
    for first in range(0, batches, BUCKET_BATCHES):
        start, end = first * size, min(first + BUCKET_BATCHES, batches) * size
        by_length = start + np.argsort(np.asarray(lengths[start:end]), kind="stable")
        for rows in rng.permutation(by_length.reshape(-1, size)):
            yield rows[rank::world]


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
