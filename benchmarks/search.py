"""Weight searches against plain Python loops, at the size of Clotho's validation split, on one core.

    OMP_NUM_THREADS=1 python benchmarks/search.py

Reranking: 1,045 clips of 60 candidates. Retrieval: 1,045 clips of 5 captions, two retrievers. Scores are drawn from a
seed; they share a part, as real ones do.

Baselines: what a first script does with the same arrays. `dense_reranking`: for each weighting and clip, NumPy's
weighted sum of the clip's allowed candidates, argmax, and the mean of the values. `exact_reranking`: the same loop over
as many weightings as the exact curve has intervals, which is what a grid would need to see them all.
`exact_retrieval`: for each weighting and query, the fused row, the rank of the right clip, and the mean of 1 / rank; as
many weightings as the exact curve has intervals. Loops are timed on a few weightings and extrapolated, since every
weighting costs the same. Both sides give the same values, which is checked. Claims without `_loop` are against a bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from claims import Claims, claim, parser, show
from numpy.typing import NDArray

from models.selection.retrieval_precisions import exact_two_retriever_search
from models.selection.weight_search import chosen_values, exact_two_score_search

CLIPS, CANDIDATES, CAPTIONS = 1045, 60, 5
ROUNDS, LOOPED, WEIGHTINGS = 3, 3, 5000
Result = TypeVar("Result")


def main() -> None:
    parser(__doc__).parse_args()
    rng = np.random.default_rng(0)
    show(reranking(rng) | retrieval(rng))


def reranking(rng: np.random.Generator) -> Claims:
    """Return the claims of the dense and the exact search of reranking weights."""
    shared = rng.normal(size=(CLIPS, CANDIDATES))
    scores = 0.6 * shared + 0.8 * rng.normal(size=(4, CLIPS, CANDIDATES))
    allowed = rng.random((CLIPS, CANDIDATES)) < 0.9
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


def retrieval(rng: np.random.Generator) -> Claims:
    """Return the claims of the exact search of the weights of two retrievers."""
    target = np.repeat(np.arange(CLIPS), CAPTIONS)
    shared = rng.normal(size=(len(target), CLIPS)) + 2.5 * np.eye(CLIPS)[target]
    pair = [0.7 * shared + 0.7 * rng.normal(size=shared.shape) for _ in range(2)]
    seconds, curve = timed(lambda: exact_two_retriever_search(pair[0], pair[1], target, "none"), 1)
    middle = (curve.breakpoints[:-1] + curve.breakpoints[1:]) / 2
    widest = np.argsort(-np.diff(curve.breakpoints))[:LOOPED]
    looped, means = timed(lambda: [loop_over_queries(pair, target, w) for w in middle[widest]], 1)
    np.testing.assert_allclose(means, curve.mean_values[widest])
    print(f"exact_retrieval: every one of {len(middle)} intervals")
    return both_ways("exact_retrieval", seconds, looped / LOOPED * len(middle), 5.0)


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
