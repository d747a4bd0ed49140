"""Weight searches against plain Python loops, at the size of Clotho's validation split, on one core.

    OMP_NUM_THREADS=1 python benchmarks/search.py

Reranking: 1,045 clips of 60 candidates. Retrieval: 1,045 clips of 5 captions, two retrievers. Scores are drawn from a
seed; they share a part, as real ones do.

Baselines: what a first script does with the same arrays. `dense_reranking`: for each weighting and clip, numpy's
weighted sum of the clip's allowed candidates, argmax, and the mean of the values. `exact_reranking`: the same loop over
as many weightings as the exact curve has intervals, which is what a grid would need to see them all. `retrieval`: for
each weighting and query, the fused row, the rank of the right clip, and the mean of 1 / rank; as many weightings as the
exact curve has intervals. Loops are timed on a few weightings and extrapolated, since every weighting costs the same.
Both sides give the same values, which is checked here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from models.selection.retrieval_precisions import exact_two_retriever_search
from models.selection.weight_search import dense_weight_search, exact_two_score_search, simplex_grid

CLIPS, CANDIDATES, CAPTIONS = 1045, 60, 5
ROUNDS, LOOPED = 3, 3
Claims = dict[str, dict[str, float | str]]


def main() -> None:
    rng = np.random.default_rng(0)
    claims = reranking(rng) | retrieval(rng)
    for name, row in claims.items():
        print(f"{name:>24}: ours {row['ours']:.4g}  baseline {row['baseline']:.4g} {row['unit']}  "
              f"ratio {row['ratio']:.1f}  target {row['target']}")  # fmt: skip
    print(json.dumps(claims))


def reranking(rng: np.random.Generator) -> Claims:
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
    looped, means = timed(lambda: [loop_over_clips(scores[:2], allowed, value, w) for w in weightings[some]], 1)
    np.testing.assert_allclose(means, curve.mean_values[some])
    claims |= both_ways("exact_reranking", seconds, looped / LOOPED * len(middle), 1.0)
    print(f"exact_reranking: every one of {len(middle)} intervals")
    for number, steps in ((2, 4999), (4, 30)):
        weightings = simplex_grid(number, steps)
        seconds, found = timed(lambda w=weightings, n=number: dense_weight_search(scores[:n], allowed, value, w))
        some = rng.choice(len(weightings), LOOPED, replace=False)
        looped, means = timed(
            lambda w=weightings[some], n=number: [loop_over_clips(scores[:n], allowed, value, one) for one in w], 1
        )
        np.testing.assert_allclose(means, found[some])
        claims |= rate(f"dense_reranking_{number}_scores", len(weightings) / seconds, LOOPED / looped, 5000)
    return claims


def retrieval(rng: np.random.Generator) -> Claims:
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


def loop_over_clips(scores: np.ndarray, allowed: np.ndarray, value: np.ndarray, weights: np.ndarray) -> float:
    total = 0.0
    for clip in range(scores.shape[1]):
        kept = np.flatnonzero(allowed[clip])
        fused = sum(weight * score[clip, kept] for weight, score in zip(weights, scores, strict=True))
        total += value[clip, kept[np.argmax(fused)]]
    return total / scores.shape[1]


def loop_over_queries(pair: list[np.ndarray], target: np.ndarray, weight: float) -> float:
    total = 0.0
    for query, right in enumerate(target):
        fused = weight * pair[0][query] + (1 - weight) * pair[1][query]
        rank = int(np.sum(fused >= fused[right]))
        total += 1 / rank if rank <= 10 else 0.0
    return total / len(target)


def timed(work: Callable[[], Any], rounds: int = ROUNDS) -> tuple[float, Any]:
    """Seconds of the median round, and the result."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), result


def both_ways(name: str, ours: float, baseline: float, bound: float) -> Claims:
    """Seconds of ours against a bound, and against the loop."""
    return {
        f"{name}_seconds": {"ours": ours, "baseline": bound, "ratio": bound / ours, "target": 1.0, "unit": "s"},
        f"{name}_loop": {"ours": ours, "baseline": baseline, "ratio": baseline / ours, "target": 50, "unit": "s"},
    }


def rate(name: str, ours: float, baseline: float, bound: float) -> Claims:
    """Weightings a second against a bound, and against the loop."""
    unit = "weightings/s"
    return {
        name: {"ours": ours, "baseline": bound, "ratio": ours / bound, "target": 1.0, "unit": unit},
        f"{name}_loop": {"ours": ours, "baseline": baseline, "ratio": ours / baseline, "target": 50, "unit": unit},
    }


if __name__ == "__main__":
    main()
