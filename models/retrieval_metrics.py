"""Text-to-audio retrieval values of DCASE Task 8: mAP@10, recall at 1, 5 and 10, median rank.

Every query has exactly one right item, so its average precision at 10 is 1 / rank within the first ten, else 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CUTOFF = 10
CHUNK_CELLS = 1 << 22  # cells compared at once: 4 MiB of booleans


class RetrievalInputError(ValueError):
    """Shapes that do not belong together, or a target that is no item."""


class NanSimilarityError(ValueError):
    """A similarity is NaN: it has no rank."""

    def __init__(self, query: int, item: int) -> None:
        super().__init__(f"similarity of query {query} and item {item} is NaN")
        self.query, self.item = query, item


@dataclass(frozen=True)
class RetrievalScores:
    """Values of Q queries."""

    ranks: np.ndarray  # [Q] int64, 1 is best
    average_precision: np.ndarray  # [Q], at 10
    corpus: dict[str, float]  # map@10, r@1, r@5, r@10 in 0..1; median_rank


def retrieval_values(similarity: np.ndarray, target: np.ndarray) -> RetrievalScores:
    """Ranks and their averages.

    Ties count against the system: the rank is 1 + the number of other items at least as similar as the right one, so
    a constant similarity gets the worst rank and not a lucky one.

    Args:
        similarity: [Q, N], higher is more alike; any real dtype, never copied as a whole.
        target: [Q] int, the right item of each query.

    Raises:
        RetrievalInputError: wrong shapes, no query, or a target outside 0..N-1.
        NanSimilarityError: with the first query and item.
    """
    similarity, target = np.asarray(similarity), np.asarray(target)
    check_target(similarity, target)
    rows = max(1, CHUNK_CELLS // similarity.shape[1])
    ranks = np.empty(len(target), np.int64)
    for start in range(0, len(target), rows):
        block = similarity[start : start + rows]
        _refuse_nan(block, start)
        ranks[start : start + rows] = pessimistic_ranks(block, target[start : start + rows])
    precision = average_precision(ranks)
    corpus = {
        "map@10": float(precision.mean()),
        **{f"r@{k}": float((ranks <= k).mean()) for k in (1, 5, 10)},
        "median_rank": float(np.median(ranks)),
    }
    return RetrievalScores(ranks, precision, corpus)


def pessimistic_ranks(similarity: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[Q] rank of each query's target in similarity [Q, N]: the number of items, itself included, at least as alike."""
    right = similarity[np.arange(len(target)), target]
    return np.count_nonzero(similarity >= right[:, None], axis=1)


def average_precision(ranks: np.ndarray) -> np.ndarray:
    """1 / rank up to rank 10, else 0; the shape of `ranks`."""
    return np.where(ranks <= CUTOFF, 1.0 / ranks, 0.0)


def chance_map10(n: int) -> float:
    """Expected mAP@10 of a random order of n items: (1 + 1/2 + ... + 1/10) / n."""
    if n < 1:
        raise RetrievalInputError(f"{n} items: at least one is needed")
    return sum(1.0 / rank for rank in range(1, min(CUTOFF, n) + 1)) / n


def check_target(similarity: np.ndarray, target: np.ndarray) -> None:
    """Raise RetrievalInputError unless target [Q] names an item of similarity [Q, N] for each query."""
    if similarity.ndim != 2 or not similarity.size:
        raise RetrievalInputError(f"similarity of shape {similarity.shape}: expected [queries, items], none of them 0")
    if target.shape != similarity.shape[:1] or not np.issubdtype(target.dtype, np.integer):
        raise RetrievalInputError(
            f"target of shape {target.shape} and dtype {target.dtype}: expected one integer for each of "
            f"{len(similarity)} queries"
        )
    outside = np.flatnonzero((target < 0) | (target >= similarity.shape[1]))
    if len(outside):
        query = int(outside[0])
        raise RetrievalInputError(
            f"target of query {query} is {int(target[query])}: expected 0..{similarity.shape[1] - 1}"
        )


def _refuse_nan(block: np.ndarray, first_query: int) -> None:
    nan = np.isnan(block)
    if nan.any():
        query, item = np.unravel_index(int(nan.argmax()), nan.shape)
        raise NanSimilarityError(first_query + int(query), int(item))
