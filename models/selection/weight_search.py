"""Search the weights of reranking.

Every objective is a mean over clips of a per-candidate value, so a weighting costs one argmax and one gather. For two
scores no grid is needed at all: as a function of the weight, each candidate's total is a straight line, and the choice
of a clip changes only at the corners of the upper envelope of its lines.

Arrays are dense: C clips, K candidates (padded, with a boolean mask), S scores, W weightings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..ensemble.score_arrays import CHUNK_CELLS, RerankingInputError, refuse_empty, refuse_non_finite, weighted_sum

SAME_WEIGHT = 1e-9  # corners nearer than this count as one: rounding moves them by about 1e-13


@dataclass(frozen=True)
class TwoScoreCurve:
    """The mean value as a function of the encoder's weight w, on I intervals; the decoder's weight is 1 - w."""

    breakpoints: np.ndarray  # [I + 1], 0 and 1 included: where some clip's choice changes
    mean_values: np.ndarray  # [I], constant inside an interval
    best_weight: float  # the middle of the best interval, the widest where several are equally good
    best_value: float


def exact_two_score_search(
    encoder: np.ndarray, decoder: np.ndarray, allowed: np.ndarray, value: np.ndarray
) -> TwoScoreCurve:
    """Compute the mean value of the chosen candidates for every w in [0, 1] of w * encoder + (1 - w) * decoder.

    All clips walk along their upper envelopes together: after the choice at w = 0, the next is the line that first
    overtakes it, in O(C K) a step and as many steps as the longest envelope has corners (about log K).

    Args:
        encoder, decoder: scores [C, K].
        allowed: [C, K] bool, at least one True a clip (`allowed_candidates`).
        value: [C, K] of each candidate by the metric; higher is better.
    """
    encoder, decoder, value = (np.asarray(one, float) for one in (encoder, decoder, value))
    allowed = np.asarray(allowed, bool)
    check_search([encoder, decoder], allowed, value)
    return line_curve(encoder, decoder, allowed, value)


def line_curve(encoder: np.ndarray, decoder: np.ndarray, allowed: np.ndarray, value: np.ndarray) -> TwoScoreCurve:
    """Return `exact_two_score_search` of arrays that have been checked, for searches along many lines."""
    at, change, start = _corners(np.where(allowed, decoder, -np.inf), np.where(allowed, encoder - decoder, 0), value)
    return curve(at, change, start, len(allowed))


def curve(at: np.ndarray, change: np.ndarray, start: float, count: int) -> TwoScoreCurve:
    """Return the curve of sum / `count`; the sum is `start` at weight 0 and changes by change [E] at weights at [E]."""
    order = np.argsort(at, kind="stable")
    at, change = _grouped(at[order], change[order])
    # a corner within SAME_WEIGHT of an end is part of it
    inside = (at > SAME_WEIGHT) & (at < 1 - SAME_WEIGHT)
    start += change[at <= SAME_WEIGHT].sum()
    edges = np.concatenate([[0.0], at[inside], [1.0]])
    means = np.cumsum(np.concatenate([[start], change[inside]])) / count
    best = _widest_best(means, np.diff(edges))
    return TwoScoreCurve(edges, means, float(edges[best : best + 2].mean()), float(means[best]))


def _corners(intercept: np.ndarray, slope: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the corners in [0, 1] of all clips' upper envelopes: weight [E] and change of value [E]; the sum at 0."""
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
        lead = intercept[np.arange(len(clips)), current][:, None] - intercept
        overtakes = np.divide(lead, rise, out=np.full(rise.shape, np.inf), where=rise > 0)
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
    """Join sorted corners nearer than SAME_WEIGHT; return weights and summed changes."""
    if not len(at):
        return at, change
    first = np.flatnonzero(np.diff(at, prepend=-np.inf) > SAME_WEIGHT)
    return at[first], np.add.reduceat(change, first)


def _widest_best(means: np.ndarray, widths: np.ndarray) -> int:
    # cumulative sums of equal values differ in their last bits
    best = means >= means.max() - 1e-12 * max(1.0, float(np.abs(means).max()))
    return int(np.where(best, widths, -1).argmax())


def chosen_values(scores: np.ndarray, allowed: np.ndarray, value: np.ndarray, weightings: np.ndarray) -> np.ndarray:
    """Return the value [W, C] of each clip's chosen candidate under each weighting.

    Args:
        scores: [S, C, K].
        allowed: [C, K] bool, at least one True a clip (`allowed_candidates`).
        value: [C, K] of each candidate by the metric.
        weightings: [W, S].
    """
    found = np.empty((len(weightings), len(allowed)))
    for index, clips, values in _chosen(scores, allowed, value, weightings):
        found[index, clips] = values
    return found


def _chosen(
    scores: np.ndarray, allowed: np.ndarray, value: np.ndarray, weightings: np.ndarray
) -> Iterator[tuple[int, slice, np.ndarray]]:
    """Yield the index of a weighting, a slice of the clips, and the values of their chosen candidates."""
    scores, value, weightings = (np.asarray(one, float) for one in (scores, value, weightings))
    allowed = np.asarray(allowed, bool)
    check_search(list(scores), allowed, value)
    if weightings.ndim != 2 or weightings.shape[1] != len(scores):
        raise RerankingInputError(f"weightings {weightings.shape} for {len(scores)} scores")
    if not (np.isfinite(weightings).all() and (weightings >= 0).all() and (weightings > 0).any(1).all()):
        raise RerankingInputError("expected weightings that are finite, without negative weights, and with one above 0")
    kept = _front(np.where(allowed, scores, 0), allowed)
    # the kept candidates of each clip to the left, in order, and only as many columns as the longest row needs
    columns = np.argsort(~kept, axis=1, kind="stable")[:, : kept.sum(1).max()]
    kept, value = np.take_along_axis(kept, columns, 1), np.take_along_axis(value, columns, 1)
    scores = np.where(kept, np.take_along_axis(scores, columns[None], 2), 0)
    bar = np.where(kept, 0.0, -np.inf)
    rows = max(1, CHUNK_CELLS // kept.shape[1])
    for first in range(0, len(kept), rows):
        chunk = slice(first, first + rows)
        clips = np.arange(len(bar[chunk]))
        for index, weights in enumerate(weightings):
            total = weighted_sum(scores[:, chunk], weights) + bar[chunk]
            yield index, chunk, value[chunk][clips, total.argmax(1)]


def _front(scores: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return [C, K] bool: the allowed candidates that some non-negative weighting may choose (usually a tenth).

    A candidate is left out where another beats it in every score, or is at least as good in every score and precedes it
    (reranking takes the first of equals).
    """
    beaten = ~allowed
    places = np.arange(allowed.shape[1])
    for place in places:
        rival = scores[:, :, place : place + 1]
        as_good = (rival >= scores).all(0) & (place < places)
        beaten |= (as_good | (rival > scores).all(0)) & allowed[:, place : place + 1]
    return ~beaten


def check_search(scores: list[np.ndarray], allowed: np.ndarray, value: np.ndarray) -> None:
    """Raise an error unless scores, each [C, K], can be searched.

    Raises:
        RerankingInputError: of another shape than `allowed` and `value`.
        NoCandidateError: no candidate of a clip is allowed.
        NonFiniteScoreError: a score or value of an allowed candidate is not finite.
    """
    if allowed.ndim != 2 or {one.shape for one in [*scores, value]} != {allowed.shape}:
        shapes = [one.shape for one in scores]
        raise RerankingInputError(f"scores {shapes}, allowed {allowed.shape}, value {value.shape}: expected one [C, K]")
    refuse_empty(allowed)
    for index, score in enumerate(scores):
        refuse_non_finite(f"score {index}", score, allowed)
    refuse_non_finite("value", value, allowed)
