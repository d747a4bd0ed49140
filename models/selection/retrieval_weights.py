"""Choose the weights of retrievers, on their similarities with known targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ..ensemble.retrieval_fusion import RRF_K, normalise_rows
from ..ensemble.score_arrays import RerankingInputError, refuse_non_finite
from .cross_validation import Choice, Rule, cross_validate
from .retrieval_precisions import by_clip, exact_two_retriever_search, item_precisions, query_precisions
from .weight_search import refine, simplex_grid
from .weight_surface import behind_best

Direction = Literal["text-to-audio", "audio-to-text"]


@dataclass(frozen=True)
class RetrievalOptions:
    """The options of `search_retrieval`; the fields are those of an experiment's `search`."""

    normalisation: str = "none"
    rrf_k: float = RRF_K
    weight_steps: int = 20
    rule: Rule = "one-standard-error"
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True)
class RetrievalFound:
    """The weights chosen, what they are worth, and all weights tried."""

    weights: dict[str, float]
    choice: Choice
    trials: pd.DataFrame  # a column for each retriever, `map@10`, and by how much the best exceeds it (`behind_best`)
    exact_best: float | None  # text to audio and two retrievers: the highest mAP@10 of any weight


def search_retrieval(
    similarities: dict[str, np.ndarray],
    target: np.ndarray,
    options: RetrievalOptions,
    direction: Direction = "text-to-audio",
) -> RetrievalFound:
    """Choose the retrievers' weights by mAP@10; equal weights are the simplest.

    Args:
        similarities: [Q, N] by the retriever's name.
        target: [Q] the clip that each query describes.

    Raises:
        RerankingInputError: retrievers differ in queries or clips; it names one of them.
        NonFiniteScoreError: naming the retriever.
    """
    _check(similarities)
    names, stacked = list(similarities), list(similarities.values())
    # normalised once; what follows weighs raw arrays
    text_first = direction == "text-to-audio"
    scaled = [normalise_rows(one if text_first else one.T, options.normalisation, options.rrf_k) for one in stacked]
    scaled = scaled if text_first else [one.T for one in scaled]

    def of_clips(weightings: np.ndarray) -> np.ndarray:
        if text_first:
            return by_clip(query_precisions(scaled, target, weightings, "none"), target, stacked[0].shape[1])
        return item_precisions(scaled, target, weightings, "none")

    equal = np.full((1, len(names)), 1 / len(names))
    grid = np.concatenate([equal, simplex_grid(len(names), options.weight_steps)])
    values = of_clips(grid)
    best, exact = grid[values.mean(1).argmax()], None
    if len(names) == 2 and text_first:
        curve = exact_two_retriever_search(scaled[0], scaled[1], target, "none")
        exact = curve.best_value
        finer = np.array([[curve.best_weight, 1 - curve.best_weight]])
    else:
        finer = refine(lambda w: of_clips(w).mean(1), best, 0.5 / options.weight_steps, 1 / 128)[1:]
    tried, values = np.concatenate([grid, finer]), np.concatenate([values, of_clips(finer)])
    complexity = np.sqrt(np.square(tried - equal).sum(1))
    choice = cross_validate(values, complexity, options.rule, options.folds, options.seed)
    behind = behind_best(values, seed=options.seed)
    trials = pd.DataFrame(tried, columns=names).assign(
        **{"map@10": values.mean(1), "behind": behind.delta, "low": behind.low, "high": behind.high},
        tied_with_best=behind.tied_with_best,
    )
    return RetrievalFound(dict(zip(names, tried[choice.index].tolist(), strict=True)), choice, trials, exact)


def _check(similarities: dict[str, np.ndarray]) -> None:
    first = next(iter(similarities))
    expected = similarities[first].shape
    for name, one in similarities.items():
        if one.shape != expected:
            raise RerankingInputError(
                f"similarity [queries, clips] by {name}: {one.shape}, expected {expected} as by {first}"
            )
        refuse_non_finite(f"similarity by {name}", one, np.True_, ("query", "clip"))
