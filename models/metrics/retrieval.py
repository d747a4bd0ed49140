"""Retrieval values of queries with one or many right items: mAP@10 and @16, recall at 1, 5 and 10, median rank.

Definitions. R@k is the share of queries with any right item among the first k. Average precision at k is the sum of
precision@p over the positions p <= k of right items, divided by min(number of right items, k), or by the number of
right items (`ApOver`). With one right item both are 1 / rank: DCASE 2024 Task 8, which ranks systems by mAP@10. DCASE
2025 Task 6 ranks them by mAP@16 of up to twelve right items, where both are the same, too. From audio to text the five
captions of a clip are its right items: R@k is any-of-five and the average precision is over all of them, as in m-LTM's
and WavCaps' code, not found / 5. The median rank is that of the best right item. Ties count against the system
everywhere; NaN is an error.

Nothing here needs the whole similarity matrix: it is asked for in blocks of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ..retriever.optimal_transport import log_plan

Block = Callable[[slice], np.ndarray]  # the similarity of some queries, [rows, N]
ApOver = Literal["cutoff", "all"]  # what average precision at k is divided by: min(right items, k), or all right items

CUTOFF = 10
LATER_CUTOFF = 16  # of DCASE 2025
# A block of 128 MiB in float32. With fewer rows a product with many items does little but read their embeddings.
BLOCK_CELLS = 1 << 25
NONE = -1  # fills rows of `relevant`


class RetrievalInputError(ValueError):
    """Shapes do not belong together, or a target is not an item."""


class NanSimilarityError(ValueError):
    """A similarity is NaN, which has no rank."""

    def __init__(self, query: int, item: int) -> None:
        super().__init__(f"similarity of query {query} and item {item} is NaN")
        self.query, self.item = query, item


@dataclass(frozen=True)
class RetrievalScores:
    """The values of Q queries."""

    ranks: np.ndarray  # [Q] int64, of the best right item, 1 is best
    average_precision: np.ndarray  # [Q], at 10
    corpus: dict[str, float]  # map@10, map@16, r@1, r@5, r@10 in 0..1; median_rank


def flatten_captions(captions: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Return the captions of N clips as one list of Q queries, and the clip [Q] that each describes."""
    target = np.repeat(np.arange(len(captions)), [len(clip) for clip in captions])
    return [caption for clip in captions for caption in clip], target


def retrieval_values(similarity: np.ndarray, target: np.ndarray) -> RetrievalScores:
    """Compute the values of queries that have one right item each.

    Ties count against the system: the rank is 1 + the number of other items at least as similar as the right one, so
    a constant similarity gets the worst rank, not a lucky one.

    Args:
        similarity: [Q, N], higher is more alike; any real dtype, never copied as a whole.
        target: [Q] int, the right item of each query.

    Raises:
        RetrievalInputError: wrong shapes, no query, or a target outside 0..N-1.
        NanSimilarityError: naming the first such query and item.
    """
    similarity, target = np.asarray(similarity), np.asarray(target)
    check_target(similarity, target)
    return retrieval_values_in_blocks(lambda rows: similarity[rows], target[:, None], similarity.shape[1])


def retrieval_values_in_blocks(
    block: Block, relevant: np.ndarray, items: int, block_cells: int | None = None, ap_over: ApOver = "cutoff"
) -> RetrievalScores:
    """Compute the values of queries that have one or many right items, with one block of similarities in memory.

    The matrix of 100,000 clips and 500,000 captions would take 200 GB. Here a block has `block_cells` numbers, and
    computing and ranking it holds a few such arrays at once.

    Args:
        block: gives the similarity [rows, N] of a slice of the queries.
        relevant: [Q, R] int, the right items of each query, in any order, at least one; rows are padded with NONE.
        items: N.
        block_cells: rows * N at most, but at least one row.
        ap_over: of queries with more right items than the cut-off.

    Raises:
        RetrievalInputError: a query without right item, an item twice or outside 0..N-1, a block of another shape.
        NanSimilarityError: naming the first such query and item.
    """
    _check_relevant(relevant, items)
    rows = max(1, (block_cells or BLOCK_CELLS) // items)
    ranks = np.empty(len(relevant), np.int64)
    precision = {cutoff: np.empty(len(relevant)) for cutoff in (CUTOFF, LATER_CUTOFF)}
    for start in range(0, len(relevant), rows):
        some = slice(start, min(start + rows, len(relevant)))
        similarity = block(some)
        if similarity.shape != (some.stop - start, items):
            raise RetrievalInputError(f"block of shape {similarity.shape}: expected {(some.stop - start, items)}")
        _refuse_nan(similarity, start)
        positions = _positions(similarity, relevant[some])
        ranks[some] = positions[:, 0]
        for cutoff, values in precision.items():
            values[some] = _average_precision_of_many(positions, relevant[some], cutoff, ap_over)
    corpus = {
        **{f"map@{cutoff}": float(values.mean()) for cutoff, values in precision.items()},
        **{f"r@{k}": float((ranks <= k).mean()) for k in (1, 5, 10)},
        "median_rank": float(np.median(ranks)),
    }
    return RetrievalScores(ranks, precision[CUTOFF], corpus)


def relevant_of(target: np.ndarray, items: int) -> np.ndarray:
    """Return the other direction of target [Q]: the queries [items, R] of each item, padded with NONE."""
    order = np.argsort(target, kind="stable")
    counts = np.bincount(target, minlength=items)
    relevant = np.full((items, counts.max()), NONE)
    relevant[np.arange(counts.max()) < counts[:, None]] = order
    return relevant


def transport_similarity(similarity: np.ndarray, epsilon: float) -> np.ndarray:
    """Return similarities [Q, N] that rank as the entropic transport plan of all queries and items, in their unit.

    The plan of the m-LTM code: uniform marginals, distances divided by the largest. A row of it orders items by
    -d + epsilon * log v, where v makes every item equally often the answer. It is transductive: a query's ranking
    depends on all other queries, so values are not comparable with those of rankings query by query.

    Args:
        similarity: negative distances.
        epsilon: entropic regularisation, relative to the largest distance.
    """
    largest = float(-similarity.min())
    # in single precision the iteration stops short of the marginals
    plan = log_plan(torch.from_numpy(-similarity / largest).double(), epsilon)
    scaled: np.ndarray = epsilon * largest * plan.numpy()
    return scaled


def pessimistic_ranks(similarity: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the rank [Q] of each query's target: the number of items at least as similar [Q, N], itself included."""
    right = similarity[np.arange(len(target)), target]
    ranks: np.ndarray = np.count_nonzero(similarity >= right[:, None], axis=1)
    return ranks


def average_precision(ranks: np.ndarray) -> np.ndarray:
    """Return 1 / rank up to rank 10, else 0, in the shape of `ranks`."""
    return np.where(ranks <= CUTOFF, 1.0 / ranks, 0.0)


def chance_map10(n: int) -> float:
    """Return the expected mAP@10 of a random order of n items: (1 + 1/2 + ... + 1/10) / n."""
    if n < 1:
        raise RetrievalInputError(f"{n} items, expected at least one")
    return sum(1.0 / rank for rank in range(1, min(CUTOFF, n) + 1)) / n


def _positions(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return the positions [rows, R] of the right items, best first; others precede on ties, padding is beyond N."""
    absent = relevant == NONE
    right = np.take_along_axis(similarity, np.where(absent, 0, relevant), axis=1)
    if relevant.shape[1] > 1:
        order = np.argsort(np.where(absent, np.inf, -right.astype(np.float64)), axis=1, kind="stable")
        right, absent = np.take_along_axis(right, order, axis=1), np.take_along_axis(absent, order, axis=1)
    positions = np.empty(relevant.shape, np.int64)
    for column in range(relevant.shape[1]):
        value = right[:, column, None]
        alike = np.count_nonzero(similarity >= value, axis=1)
        own = np.count_nonzero((right >= value) & ~absent, axis=1)
        positions[:, column] = alike - own + column + 1
    return np.where(absent, similarity.shape[1] + 1, positions)


def _average_precision_of_many(positions: np.ndarray, relevant: np.ndarray, cutoff: int, ap_over: ApOver) -> np.ndarray:
    """Return the average precision at a cut-off, [rows]."""
    hits = np.arange(1, positions.shape[1] + 1)
    counts = np.count_nonzero(relevant != NONE, axis=1)
    found = np.where((positions <= cutoff) & (hits <= counts[:, None]), hits / positions, 0.0)
    precision: np.ndarray = found.sum(axis=1) / (counts if ap_over == "all" else np.minimum(counts, cutoff))
    return precision


def _check_relevant(relevant: np.ndarray, items: int) -> None:
    if relevant.ndim != 2 or not relevant.size or not np.issubdtype(relevant.dtype, np.integer):
        raise RetrievalInputError(f"relevant of shape {relevant.shape}: expected integers [queries, items], not empty")
    if relevant.min() < NONE or relevant.max() >= items:
        raise RetrievalInputError(f"relevant: found {relevant.min()}..{relevant.max()}, expected 0..{items - 1}")
    lone = np.flatnonzero((relevant == NONE).all(axis=1))
    if len(lone):
        raise RetrievalInputError(f"query {lone[0]} has no right item")
    ordered = np.sort(relevant, axis=1)
    twice = np.flatnonzero(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NONE)).any(axis=1))
    if len(twice):
        raise RetrievalInputError(f"query {twice[0]} names an item twice")


def check_target(similarity: np.ndarray, target: np.ndarray) -> None:
    """Raise RetrievalInputError unless target [Q] names an item of similarity [Q, N] for each query."""
    if similarity.ndim != 2 or not similarity.size:
        raise RetrievalInputError(f"similarity of shape {similarity.shape}: expected [queries, items], not empty")
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
