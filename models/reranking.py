"""Choosing one candidate a clip, joining retrievers, and searching the weights of both.

The paper (arXiv 2409.01160) and the scheme it builds on (arXiv 2309.17352): drop the candidates that the fluency
detector flags, then take the highest w_enc * encoder_score + w_dec * decoder_score.

Every metric searched for is a mean over clips of a per-candidate value, so a weighting costs one argmax and one gather.
For two scores no grid is needed at all: over the weight, each candidate is a straight line, and the choice of a clip
only changes at the corners of the upper envelope of its lines.

Arrays are dense: C clips, K candidates (padded, with a boolean mask), S scores, W weightings, Q queries, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

from models.retrieval_metrics import average_precision, check_target, pessimistic_ranks

CHUNK_CELLS = 1 << 17  # cells of one weighting worked on at once: 1 MiB, so that it stays in the cache
SAME_WEIGHT = 1e-9  # corners nearer than this are one: rounding moves them about by 1e-13 or so


class RerankingInputError(ValueError):
    """Arrays that do not belong together, or an unknown method."""


class NoCandidateError(ValueError):
    """A clip has nothing to choose from."""

    def __init__(self, clip: int) -> None:
        super().__init__(f"clip {clip} has no candidate")
        self.clip = clip


class NonFiniteScoreError(ValueError):
    """An unmasked score is NaN or infinite: no order would be right."""

    def __init__(self, what: str, row: int, column: int, axes: tuple[str, str] = ("clip", "candidate")) -> None:
        super().__init__(f"{what} of {axes[0]} {row}, {axes[1]} {column} is not finite")
        self.row, self.column = row, column


@dataclass(frozen=True)
class TwoScoreCurve:
    """Mean value over the encoder's weight w; the decoder's weight is 1 - w. I intervals."""

    breakpoints: np.ndarray  # [I + 1], 0 and 1 included: where some clip's choice changes
    mean_values: np.ndarray  # [I], constant inside an interval
    best_weight: float  # the middle of the best interval, the widest where several are equally good
    best_value: float


# --- one candidate a clip ------------------------------------------------------------------------------------------


def normalise(scores: np.ndarray, mask: np.ndarray, method: str) -> np.ndarray:
    """Put the scores of each clip on a common scale.

    Args:
        scores: [C, K].
        mask: [C, K] bool, True where there is a candidate.
        method: `none`: as they are; `z`: zero mean and unit deviation (0 where all are alike); `rank`: 0 for the lowest
            to 1 for the highest, ties share their mean rank; `softmax`: positive, of sum 1.

    Returns:
        [C, K] float64, 0 outside the mask.
    """
    scores, mask = np.asarray(scores, float), np.asarray(mask, bool)
    if scores.shape != mask.shape or scores.ndim != 2:
        raise RerankingInputError(f"scores {scores.shape} and mask {mask.shape}: expected the same [clips, candidates]")
    _refuse_non_finite("score", scores, mask)
    count = np.maximum(mask.sum(1, keepdims=True), 1)
    if method == "none":
        scaled = scores
    elif method == "z":
        centred = np.where(mask, scores - (np.where(mask, scores, 0).sum(1, keepdims=True) / count), 0)
        scaled = _over(centred, np.sqrt(np.square(centred).sum(1, keepdims=True) / count), np.where(mask, scores, 0))
    elif method == "rank":
        ranks = rankdata(np.where(mask, scores, np.nan), axis=1, nan_policy="omit")
        scaled = (ranks - 1) / np.maximum(count - 1, 1)
    elif method == "softmax":
        raised = np.exp(np.where(mask, scores, -np.inf) - np.where(mask, scores, -np.inf).max(1, keepdims=True))
        scaled = raised / raised.sum(1, keepdims=True)
    else:
        raise RerankingInputError(f"normalisation `{method}`: expected none, z, rank or softmax")
    return np.where(mask, scaled, 0.0)


def allowed_candidates(fluency_error: np.ndarray, mask: np.ndarray, threshold: float = 0.9) -> np.ndarray:
    """[C, K] bool: the candidates not flagged (fluency_error <= threshold; FENSE flags strictly above 0.9).

    Where the filter empties a clip, its most fluent candidate stays, so that every clip gets a caption.

    Raises:
        NoCandidateError, NonFiniteScoreError.
    """
    fluency_error, mask = np.asarray(fluency_error, float), np.asarray(mask, bool)
    if fluency_error.shape != mask.shape or mask.ndim != 2:
        raise RerankingInputError(f"fluency_error {fluency_error.shape} and mask {mask.shape}: expected one [C, K]")
    _refuse_empty(mask)
    _refuse_non_finite("fluency_error", fluency_error, mask)
    allowed = mask & (fluency_error <= threshold)
    emptied = np.flatnonzero(~allowed.any(1))
    allowed[emptied, np.where(mask, fluency_error, np.inf)[emptied].argmin(1)] = True
    return allowed


def select(
    scores: np.ndarray, weights: np.ndarray, fluency_error: np.ndarray, mask: np.ndarray, threshold: float = 0.9
) -> np.ndarray:
    """The chosen candidate of each clip: the highest weighted sum among the allowed, the first of equals.

    Args:
        scores: [S, C, K], normalised if wanted.
        weights: [S].
        fluency_error: [C, K] probability of a damaged caption.
        mask: [C, K] bool, True where there is a candidate.

    Returns:
        [C] int.

    Raises:
        NoCandidateError, NonFiniteScoreError, RerankingInputError.
    """
    scores, weights, mask = np.asarray(scores, float), np.asarray(weights, float), np.asarray(mask, bool)
    if weights.shape != scores.shape[:1] or scores.shape[1:] != mask.shape:
        raise RerankingInputError(f"scores {scores.shape}, weights {weights.shape}, mask {mask.shape} do not fit")
    allowed = allowed_candidates(fluency_error, mask, threshold)
    for index, score in enumerate(scores):
        _refuse_non_finite(f"score {index}", score, mask)
    # masked cells may hold anything, NaN too: they are 0 before the sum and never win after it
    total = _weighted_sum(np.where(mask, scores, 0), weights)
    return np.where(allowed, total, -np.inf).argmax(1)


# --- searching the weights of scores -------------------------------------------------------------------------------


def exact_two_score_search(
    encoder: np.ndarray, decoder: np.ndarray, allowed: np.ndarray, value: np.ndarray
) -> TwoScoreCurve:
    """Mean value of the chosen candidates for every w in [0, 1] of w * encoder + (1 - w) * decoder; no grid.

    All clips walk along their upper envelopes together: from the choice at w = 0, the next is the line that first
    overtakes it, in O(C K) a step and as many steps as the longest envelope has corners (about log K).

    Args:
        encoder, decoder: scores [C, K].
        allowed: [C, K] bool, at least one True a clip (`allowed_candidates`).
        value: [C, K] of each candidate by the metric; higher is better.
    """
    encoder, decoder, value = (np.asarray(one, float) for one in (encoder, decoder, value))
    allowed = np.asarray(allowed, bool)
    _check_search([encoder, decoder], allowed, value)
    at, change, start = _corners(np.where(allowed, decoder, -np.inf), np.where(allowed, encoder - decoder, 0), value)
    order = np.argsort(at, kind="stable")
    at, change = at[order], change[order]
    # a corner within SAME_WEIGHT of an end or of the one before is part of it
    breakpoints, sums = [0.0], [start]
    for weight, total in zip(*_grouped(at, change), strict=True):
        if weight <= SAME_WEIGHT:
            sums[0] += total
        elif weight < 1 - SAME_WEIGHT:
            breakpoints.append(weight)
            sums.append(total)
    edges = np.array([*breakpoints, 1.0])
    means = np.cumsum(sums) / len(allowed)
    best = _widest_best(means, np.diff(edges))
    return TwoScoreCurve(edges, means, float(edges[best : best + 2].mean()), float(means[best]))


def _corners(intercept: np.ndarray, slope: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Corners inside [0, 1] of all clips' upper envelopes: weight [E], change of value [E]; and the sum at 0."""
    clips = np.arange(len(intercept))
    # just right of w = 0, the steepest of the highest lines leads; argmax takes the first of equal lines
    level = intercept.max(1, keepdims=True)
    current = np.where(intercept == level, slope, -np.inf).argmax(1)
    start = float(value[clips, current].sum())
    at: list[np.ndarray] = [np.empty(0)]
    change: list[np.ndarray] = [np.empty(0)]
    reached = np.zeros(len(clips))
    while len(clips):
        rise = slope - slope[np.arange(len(clips)), current][:, None]
        behind = intercept[np.arange(len(clips)), current][:, None] - intercept
        overtakes = np.divide(behind, rise, out=np.full(rise.shape, np.inf), where=rise > 0)
        first = overtakes.min(1)
        on = first < 1
        clips, intercept, slope, current, reached = clips[on], intercept[on], slope[on], current[on], reached[on]
        overtakes, first = overtakes[on], first[on]
        following = np.where(overtakes == first[:, None], slope, -np.inf).argmax(1)
        reached = np.maximum(reached, first)  # rounding may put a corner just left of the one before
        at.append(reached)
        change.append(value[clips, following] - value[clips, current])
        current = following
    return np.concatenate(at), np.concatenate(change), start


def _grouped(at: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted corners, those nearer than SAME_WEIGHT joined: weights and summed changes."""
    if not len(at):
        return at, change
    first = np.flatnonzero(np.diff(at, prepend=-np.inf) > SAME_WEIGHT)
    return at[first], np.add.reduceat(change, first)


def _widest_best(means: np.ndarray, widths: np.ndarray) -> int:
    # cumulative sums of equal values differ in their last bits
    best = means >= means.max() - 1e-12 * max(1.0, float(np.abs(means).max()))
    return int(np.where(best, widths, -1).argmax())


def dense_weight_search(
    scores: np.ndarray, allowed: np.ndarray, value: np.ndarray, weightings: np.ndarray
) -> np.ndarray:
    """Mean value [W] of the chosen candidates under each weighting.

    Args:
        scores: [S, C, K].
        allowed: [C, K] bool, at least one True a clip (`allowed_candidates`).
        value: [C, K] of each candidate by the metric.
        weightings: [W, S], such as `simplex_grid`.
    """
    scores, value, weightings = (np.asarray(one, float) for one in (scores, value, weightings))
    allowed = np.asarray(allowed, bool)
    _check_search(list(scores), allowed, value)
    if weightings.ndim != 2 or weightings.shape[1] != len(scores):
        raise RerankingInputError(f"weightings {weightings.shape} for {len(scores)} scores")
    if not (np.isfinite(weightings).all() and (weightings >= 0).all() and (weightings > 0).any(1).all()):
        raise RerankingInputError("a weighting is finite, has no negative weight and one above 0")
    kept = _front(np.where(allowed, scores, 0), allowed)
    # the kept of each clip to the left, in their order, and only as many columns as the longest row needs
    columns = np.argsort(~kept, axis=1, kind="stable")[:, : kept.sum(1).max()]
    kept, value = np.take_along_axis(kept, columns, 1), np.take_along_axis(value, columns, 1)
    scores = np.where(kept, np.take_along_axis(scores, columns[None], 2), 0)
    bar = np.where(kept, 0.0, -np.inf)
    sums = np.zeros(len(weightings))
    rows = max(1, CHUNK_CELLS // kept.shape[1])
    for first in range(0, len(kept), rows):
        chunk = slice(first, first + rows)
        clips = np.arange(len(bar[chunk]))
        for index, weights in enumerate(weightings):
            total = _weighted_sum(scores[:, chunk], weights) + bar[chunk]
            sums[index] += value[chunk][clips, total.argmax(1)].sum()
    return sums / len(kept)


def _front(scores: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """[C, K] bool: the allowed candidates that some weighting without negative weights may choose (usually a tenth).

    Left out is what another beats in every score, or equals or beats in every score and precedes (`select` takes the
    first of equals).
    """
    beaten = ~allowed
    places = np.arange(allowed.shape[1])
    for place in places:
        rival = scores[:, :, place : place + 1]
        as_good = (rival >= scores).all(0) & (place < places)
        beaten |= (as_good | (rival > scores).all(0)) & allowed[:, place : place + 1]
    return ~beaten


def simplex_grid(n: int, steps: int) -> np.ndarray:
    """All weightings [W, n] of multiples of 1 / steps that sum to 1, W = (steps + n - 1 choose n - 1)."""
    if n < 1 or steps < 1:
        raise RerankingInputError(f"{n} weights in {steps} steps: both are at least 1")
    # stars and bars: n - 1 bars among the stars; a weight is the number of stars between two bars
    bars = list(combinations(range(steps + n - 1), n - 1))
    edges = np.full((len(bars), n + 1), -1)
    edges[:, 1:-1] = np.array(bars, int).reshape(len(bars), n - 1)
    edges[:, -1] = steps + n - 1
    return (np.diff(edges, axis=1) - 1) / steps


# --- retrievers ----------------------------------------------------------------------------------------------------


def fuse(similarities: Sequence[np.ndarray], weights: np.ndarray, method: str) -> np.ndarray:
    """Weighted sum [Q, N] of retrievers' similarities, each [Q, N].

    Args:
        method: `none`: as they are; `z`: each query's row at zero mean and unit deviation; `rank`: each row as its
            ranks, 0 for the lowest to 1 for the highest.
    """
    weights = np.asarray(weights, float)
    if len(similarities) != len(weights) or len({one.shape for one in similarities}) != 1:
        shapes = [one.shape for one in similarities]
        raise RerankingInputError(f"similarities {shapes} and {len(weights)} weights do not fit")
    _refuse_non_finite_similarities(similarities)
    return _weighted_sum([_normalise_rows(one, method) for one in similarities], weights)


def retrieval_weight_search(
    similarities: Sequence[np.ndarray], target: np.ndarray, weightings: np.ndarray, method: str
) -> np.ndarray:
    """mAP@10 [W] of the retrievers joined by each weighting [W, S]; equal to `retrieval_values` of `fuse`.

    Args:
        similarities: one [Q, N] a retriever.
        target: [Q] the right item of each query.
        method: as of `fuse`.

    Raises:
        RerankingInputError, NonFiniteScoreError; RetrievalInputError of a target that is no item.
    """
    weightings, target = np.asarray(weightings, float), np.asarray(target)
    shapes = {one.shape for one in similarities}
    if len(shapes) != 1 or weightings.shape[1:] != (len(similarities),) or next(iter(shapes))[0] != len(target):
        raise RerankingInputError(f"similarities {shapes}, weightings {weightings.shape}, target {target.shape}")
    check_target(similarities[0], target)
    _refuse_non_finite_similarities(similarities)
    queries, items = similarities[0].shape
    sums = np.zeros(len(weightings))
    rows = max(1, CHUNK_CELLS // items)
    for first in range(0, queries, rows):
        blocks = [_normalise_rows(one[first : first + rows], method) for one in similarities]
        for index, weights in enumerate(weightings):
            ranks = pessimistic_ranks(_weighted_sum(blocks, weights), target[first : first + rows])
            sums[index] += average_precision(ranks).sum()
    return sums / queries


def _refuse_non_finite_similarities(similarities: Sequence[np.ndarray]) -> None:
    for index, similarity in enumerate(similarities):
        _refuse_non_finite(f"similarity {index}", similarity, np.True_, ("query", "item"))


def _normalise_rows(similarity: np.ndarray, method: str) -> np.ndarray:
    if method == "none":
        return similarity
    if method == "z":
        centred = similarity - similarity.mean(1, keepdims=True)
        return _over(centred, similarity.std(1, keepdims=True), similarity)
    if method == "rank":
        return (rankdata(similarity, axis=1) - 1) / max(1, similarity.shape[1] - 1)
    raise RerankingInputError(f"normalisation `{method}`: expected none, z or rank")


# --- shared --------------------------------------------------------------------------------------------------------


def _over(centred: np.ndarray, deviation: np.ndarray, values: np.ndarray) -> np.ndarray:
    """centred / deviation, 0 where the deviation is but rounding of the values."""
    alike = deviation <= 8 * np.finfo(centred.dtype).eps * np.abs(values).max(1, keepdims=True)
    return np.where(alike, 0, centred / np.where(alike, 1, deviation))


def _weighted_sum(arrays: Sequence[np.ndarray] | np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of weight * array, term by term in one order.

    Not a matrix product: BLAS may round equal columns differently, which would break ties at random.
    """
    total = arrays[0] * float(weights[0])
    for array, weight in zip(arrays[1:], weights[1:], strict=True):
        total = total + array * float(weight)
    return total


def _check_search(scores: list[np.ndarray], allowed: np.ndarray, value: np.ndarray) -> None:
    if allowed.ndim != 2 or {one.shape for one in [*scores, value]} != {allowed.shape}:
        shapes = [one.shape for one in scores]
        raise RerankingInputError(f"scores {shapes}, allowed {allowed.shape}, value {value.shape}: expected one [C, K]")
    _refuse_empty(allowed)
    for index, score in enumerate(scores):
        _refuse_non_finite(f"score {index}", score, allowed)
    _refuse_non_finite("value", value, allowed)


def _refuse_empty(mask: np.ndarray) -> None:
    empty = np.flatnonzero(~mask.any(1))
    if len(empty):
        raise NoCandidateError(int(empty[0]))


def _refuse_non_finite(
    what: str, values: np.ndarray, mask: np.ndarray | np.bool, axes: tuple[str, str] = ("clip", "candidate")
) -> None:
    bad = np.argwhere(mask & ~np.isfinite(values))
    if len(bad):
        raise NonFiniteScoreError(what, int(bad[0, 0]), int(bad[0, 1]), axes)
