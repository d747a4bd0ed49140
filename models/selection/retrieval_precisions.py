"""Compute the average precision of fused retrievers under many weightings.

Q queries, N items, W weightings. For two retrievers no grid is needed: over the weight, the lead of an item over the
right one is a straight line, so the rank of the right item changes only where such a line crosses zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ensemble.retrieval_fusion import RRF_K, normalise_rows, refuse_non_finite_similarities
from ..ensemble.score_arrays import CHUNK_CELLS, RerankingInputError, weighted_sum
from ..metrics.retrieval import CUTOFF, average_precision, check_target, pessimistic_ranks
from .weight_search import TwoScoreCurve, curve


def query_precisions(
    similarities: Sequence[np.ndarray], target: np.ndarray, weightings: np.ndarray, method: str, rrf_k: float = RRF_K
) -> np.ndarray:
    """Return average precision at 10 [W, Q] of each query by each weighting [W, S], as `retrieval_values` of `fuse`.

    Args:
        similarities: [Q, N] of each retriever.
        target: [Q] the right item of each query.
        method, rrf_k: as for `fuse`.

    Raises:
        RerankingInputError: shapes that do not belong together, or an unknown method.
        NonFiniteScoreError: naming the first such similarity.
        RetrievalInputError: a target that is not an item.
    """
    target = np.asarray(target)
    _check(similarities, target, weightings)
    queries, items = similarities[0].shape
    found = np.empty((len(weightings), queries))
    rows = max(1, CHUNK_CELLS // items)
    for first in range(0, queries, rows):
        block = slice(first, first + rows)
        scaled = [normalise_rows(one[block], method, rrf_k) for one in similarities]
        for index, weights in enumerate(np.asarray(weightings, float)):
            found[index, block] = average_precision(pessimistic_ranks(weighted_sum(scaled, weights), target[block]))
    return found


def item_precisions(
    similarities: Sequence[np.ndarray], target: np.ndarray, weightings: np.ndarray, method: str, rrf_k: float = RRF_K
) -> np.ndarray:
    """Return average precision at 10 [W, N] of each item in finding its own queries: audio to text.

    All queries are ranked for an item; with R right ones at ranks p_1 < p_2 < ..., the value is the sum of i / p_i over
    those within the first ten, divided by R (as WavCaps and m-LTM count it). An item without queries is worth 0.
    """
    target = np.asarray(target)
    _check(similarities, target, weightings)
    scaled = [normalise_rows(one.T, method, rrf_k) for one in similarities]
    found = [_own_precisions(weighted_sum(scaled, weights), target) for weights in weightings]
    return np.reshape(found, (-1, similarities[0].shape[1]))


def _own_precisions(fused: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return average precision at 10 [N] of fused [N, Q]; a wrong query precedes an equally similar right one."""
    found = np.zeros(len(fused))
    own_of = np.argsort(target, kind="stable")
    ends = np.cumsum(np.bincount(target, minlength=len(fused)))
    for item, own in enumerate(np.split(own_of, ends[:-1])):
        if len(own):
            right = -np.sort(-fused[item, own])
            wrong = np.delete(fused[item], own)
            place = np.arange(1, len(own) + 1)
            position = place + np.count_nonzero(wrong >= right[:, None], axis=1)
            found[item] = np.where(position <= CUTOFF, place / position, 0).sum() / len(own)
    return found


def exact_two_retriever_search(
    first: np.ndarray, second: np.ndarray, target: np.ndarray, method: str, rrf_k: float = RRF_K
) -> TwoScoreCurve:
    """Compute mAP@10 for every w in [0, 1] of w * first + (1 - w) * second, each [Q, N]; no grid.

    An item is ahead of the right one where it is at least as similar; as w grows it is ahead always, never, from one
    weight on, or up to one weight. A query's crossings in order give its rank everywhere, in O(N log N).
    """
    target = np.asarray(target)
    _check([first, second], target, np.ones((1, 2)))
    queries, items = first.shape
    at: list[np.ndarray] = []
    change: list[np.ndarray] = []
    start = 0.0
    rows = max(1, CHUNK_CELLS // items)
    for begin in range(0, queries, rows):
        block = slice(begin, begin + rows)
        pair = [normalise_rows(one[block], method, rrf_k) for one in (first, second)]
        sum_at_0, *crossings = _precision_changes(pair[0], pair[1], target[block])
        start += sum_at_0
        at.append(crossings[0])
        change.append(crossings[1])
    return curve(np.concatenate(at), np.concatenate(change), start, queries)


def _precision_changes(
    first: np.ndarray, second: np.ndarray, target: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the sum of average precisions right of w = 0, the weights [E] where it changes, and the changes [E]."""
    right = np.arange(len(target)), target
    lead_at_0, lead_at_1 = (np.asarray(one - one[right][:, None], float) for one in (second, first))
    enters, leaves = (lead_at_0 < 0) & (lead_at_1 >= 0), (lead_at_0 >= 0) & (lead_at_1 < 0)
    # the right item itself is always ahead by this count, so ranks begin at 1
    rank = np.count_nonzero(lead_at_0 >= 0, axis=1)
    # the items always ahead bound the rank from below: a query that never reaches the first ten adds nothing
    open_ = np.flatnonzero(rank - np.count_nonzero(leaves, axis=1) <= CUTOFF)
    crossing = (enters | leaves)[open_]
    row, item = np.nonzero(crossing)
    rise = lead_at_1[open_][row, item] - lead_at_0[open_][row, item]
    at = -lead_at_0[open_][row, item] / rise
    order = np.lexsort((at, row))
    row, at, step = row[order], at[order], np.sign(rise)[order].astype(np.int64)
    # rank after each event: the row's at w = 0, and the steps since the row's first event
    total = np.cumsum(step)
    begins = np.searchsorted(row, np.arange(len(open_)))
    before_row = np.concatenate([[0], total])[begins]
    after = rank[open_][row] + total - before_row[row]
    change = average_precision(after) - average_precision(after - step)
    moved = change != 0
    return float(average_precision(rank).sum()), at[moved], change[moved]


def by_clip(of_queries: np.ndarray, target: np.ndarray, clips: int) -> np.ndarray:
    """Sum values [W, Q] of queries by clip to [W, C], scaled so that a mean over clips is the mean over queries.

    The captions of a clip are not independent observations: folds and resamples are drawn of clips.
    """
    scale = clips / len(target)
    return np.reshape([np.bincount(target, row, minlength=clips) for row in of_queries], (-1, clips)) * scale


def _check(similarities: Sequence[np.ndarray], target: np.ndarray, weightings: np.ndarray) -> None:
    shapes = {one.shape for one in similarities}
    shape = np.shape(weightings)
    if len(shapes) != 1 or shape[1:] != (len(similarities),) or next(iter(shapes))[0] != len(target):
        raise RerankingInputError(f"similarities {shapes}, weightings {shape}, target {target.shape}")
    check_target(similarities[0], target)
    refuse_non_finite_similarities(similarities)
