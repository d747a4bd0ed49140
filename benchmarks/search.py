"""Weight searches against plain Python loops, at the size of Clotho's validation split, on one core.

    OMP_NUM_THREADS=1 python benchmarks/search.py [--clips 1045]

Reranking: 1,045 clips of 60 candidates. Retrieval: 1,045 clips of 5 captions, two retrievers, and three where captions
are ranked for clips. Scores are drawn from a seed; they share a part, as real ones do.

Baselines: what a first script does with the same arrays. `dense_reranking`: for each weighting and clip, NumPy's
weighted sum of the clip's allowed candidates, argmax, and the mean of the values. `exact_reranking`: the same loop over
as many weightings as the exact curve has intervals, which is what a grid would need to see them all. `exact_retrieval`:
for each weighting and query, the fused row, the rank of the right clip, and the mean of 1 / rank; as many weightings as
the exact curve has intervals. `audio_to_text`: for each of 17 weightings along a line and each clip, the fused row and
the positions of the clip's captions; ours is every interval of that line. Loops are timed on a few weightings and
extrapolated, since every weighting costs the same. Both sides give the same values, which is checked. Claims without
`_loop` are against a bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from claims import Claims, claim, parser, show
from numpy.typing import NDArray

from models.selection.retrieval_precisions import RightAnswers
from models.selection.weight_search import chosen_values, exact_two_score_search

CLIPS, CANDIDATES, CAPTIONS = 1045, 60, 5
ROUNDS, LOOPED, WEIGHTINGS = 3, 3, 5000
GRID = 17  # points of a line where no exact search is known
Result = TypeVar("Result")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--clips", type=int, default=CLIPS)
    clips = options.parse_args().clips
    rng = np.random.default_rng(0)
    show(reranking(rng, clips) | retrieval(rng, clips) | audio_to_text(rng, clips))


def reranking(rng: np.random.Generator, clips: int) -> Claims:
    """Return the claims of the dense and the exact search of reranking weights."""
    shared = rng.normal(size=(clips, CANDIDATES))
    scores = 0.6 * shared + 0.8 * rng.normal(size=(4, clips, CANDIDATES))
    allowed = rng.random((clips, CANDIDATES)) < 0.9
    allowed[:, 0] = True
    value = np.maximum(0, shared + rng.normal(size=shared.shape))
    claims: Claims = {}
    seconds, curve = timed(lambda: exact_two_score_search(scores[0], scores[1], allowed, value))
    middle = (curve.breakpoints[:-1] + curve.breakpoints[1:]) / 2
    some = rng.choice(len(middle), LOOPED, replace=False)
    weightings = np.stack([middle, 1 - middle], 1)
    looped, means = timed(lambda: loop_over_weightings(scores[:2], allowed, value, weightings[some]), 1)
    np.testing.assert_allclose(means, curve.mean_values[some])
    claims |= both_ways("exact_reranking", seconds, looped / LOOPED * len(middle), 1.0)
    print(f"exact_reranking: every one of {len(middle)} intervals")
    for number in (2, 4):
        weightings = rng.dirichlet(np.ones(number), WEIGHTINGS)
        seconds, found = timed(partial(chosen_values, scores[:number], allowed, value, weightings))
        some = rng.choice(len(weightings), LOOPED, replace=False)
        looped, means = timed(partial(loop_over_weightings, scores[:number], allowed, value, weightings[some]), 1)
        np.testing.assert_allclose(means, found[some].mean(1))
        claims |= rate(f"dense_reranking_{number}_scores", len(weightings) / seconds, LOOPED / looped, 5000)
    return claims


def retrieval(rng: np.random.Generator, clips: int) -> Claims:
    """Return the claims of the exact search of the weights of two retrievers."""
    target, pair = similarities(rng, clips, 2)
    captions, start, end = np.arange(len(target)), np.array([0.0, 1.0]), np.array([1.0, 0.0])
    seconds, curve = timed(
        lambda: RightAnswers.among(pair, captions, target, captions).along(start, end, len(target)), 1
    )
    middle = (curve.breakpoints[:-1] + curve.breakpoints[1:]) / 2
    widest = np.argsort(-np.diff(curve.breakpoints))[:LOOPED]
    looped, means = timed(lambda: [loop_over_queries(pair, target, w) for w in middle[widest]], 1)
    np.testing.assert_allclose(means, curve.mean_values[widest])
    print(f"exact_retrieval: every one of {len(middle)} intervals")
    return both_ways("exact_retrieval", seconds, looped / LOOPED * len(middle), 5.0)


def audio_to_text(rng: np.random.Generator, clips: int) -> Claims:
    """Return the claims of a line search of the weights of three retrievers where captions are ranked for clips."""
    target, three = similarities(rng, clips, 3)
    rows, start, end = [one.T.copy() for one in three], np.array([0.0, 0.5, 0.5]), np.array([1.0, 0.0, 0.0])
    once, answers = timed(lambda: RightAnswers.among(rows, target, np.arange(len(target)), target), 1)
    seconds, curve = timed(lambda: answers.along(start, end, clips))
    shares = np.sort(rng.choice(np.linspace(0, 1, GRID)[1:-1], LOOPED, replace=False))
    line = [(1 - share) * start + share * end for share in shares]
    looped, means = timed(lambda: [loop_over_rows(rows, target, weights) for weights in line], 1)
    np.testing.assert_allclose(means, curve.mean_values[np.searchsorted(curve.breakpoints, shares) - 1])
    print(f"audio_to_text: every one of {len(curve.mean_values)} intervals, after {once:.2f} s that all lines share")
    return {"audio_to_text_line_loop": claim(seconds, looped / LOOPED * GRID, 10, "s", less=True)}


def similarities(
    rng: np.random.Generator, clips: int, number: int
) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]]:
    """Return the clip that each caption describes, and similarities [captions, clips]."""
    target = np.repeat(np.arange(clips), CAPTIONS)
    shared = rng.normal(size=(len(target), clips)) + 2.5 * np.eye(clips)[target]
    return target, [0.7 * shared + 0.7 * rng.normal(size=shared.shape) for _ in range(number)]


def loop_over_weightings(
    scores: NDArray[np.float64], allowed: NDArray[np.bool_], value: NDArray[np.float64], weightings: NDArray[np.float64]
) -> list[float]:
    return [loop_over_clips(scores, allowed, value, weights) for weights in weightings]


def loop_over_clips(
    scores: NDArray[np.float64], allowed: NDArray[np.bool_], value: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    """Return the mean value of the clips' best candidates under one weighting."""
    total = 0.0
    for clip in range(scores.shape[1]):
        kept = np.flatnonzero(allowed[clip])
        fused = sum(weight * score[clip, kept] for weight, score in zip(weights, scores, strict=True))
        total += value[clip, kept[np.argmax(fused)]]
    return total / scores.shape[1]


def loop_over_queries(pair: list[NDArray[np.float64]], target: NDArray[np.int64], weight: float) -> float:
    """Return mAP@10 of the fused similarities."""
    total = 0.0
    for query, right in enumerate(target):
        fused = weight * pair[0][query] + (1 - weight) * pair[1][query]
        rank = int(np.sum(fused >= fused[right]))
        total += 1 / rank if rank <= 10 else 0.0
    return total / len(target)


def loop_over_rows(rows: list[NDArray[np.float64]], target: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Return the mean over clips of the average precision at 10 of finding their own captions."""
    total = 0.0
    for clip in range(len(rows[0])):
        fused = sum(weight * one[clip] for weight, one in zip(weights, rows, strict=True))
        own = np.flatnonzero(target == clip)
        wrong = np.delete(fused, own)
        for place, right in enumerate(sorted(fused[own], reverse=True), 1):
            position = place + int(np.sum(wrong >= right))
            total += place / position / len(own) if position <= 10 else 0.0
    return total / len(rows[0])


def timed(work: Callable[[], Result], rounds: int = ROUNDS) -> tuple[float, Result]:
    """Return the seconds of the median round, and the result."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), result


def both_ways(name: str, ours: float, baseline: float, bound: float) -> Claims:
    """Return the claims of our seconds against a bound, and against the loop."""
    return {
        f"{name}_seconds": claim(ours, bound, 1.0, "s", less=True),
        f"{name}_loop": claim(ours, baseline, 50, "s", less=True),
    }


def rate(name: str, ours: float, baseline: float, bound: float) -> Claims:
    """Return the claims of our weightings per second against a bound, and against the loop."""
    unit = "weightings/s"
    return {name: claim(ours, bound, 1.0, unit), f"{name}_loop": claim(ours, baseline, 50, unit)}


if __name__ == "__main__":
    main()
