"""Choose whose candidates enter and how their scores are weighed, on a candidate table with known values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from ..ensemble.candidate_table import CandidateTable
from ..ensemble.reranking import allowed_candidates, normalise
from ..ensemble.scores.base import weight_name
from ..ensemble.scores.decoder import DECODER
from ..ensemble.scores.encoder import ENCODER
from ..settings import EncoderScoring, Fallback
from .cross_validation import Choice, Rule, cross_validate
from .weight_search import chosen_values, dense_weight_search, exact_two_score_search, refine, simplex_grid

ENCODER_WEIGHT = 0.7  # in the paper (arXiv 2309.17352); the decoder has the rest
MIXTURE = "captioners"  # the column of trials that names whose candidates entered
MOST_MIXED = 6  # captioners of which every group is tried: 63 groups


@dataclass(frozen=True)
class RerankingOptions:
    """The options of `search_reranking`; the fields are those of an experiment's `search`."""

    normalisation: str = "none"
    fluency_threshold: float = 0.9
    weight_steps: int = 10
    rule: Rule = "one-standard-error"
    folds: int = 5
    seed: int = 0
    encoder_score: EncoderScoring = "cosine"  # of the table that is searched
    fallback: Fallback = "best"


@dataclass(frozen=True)
class RerankingFound:
    """The setting chosen, what it is worth, and all settings tried."""

    captioners: list[str]
    weights: dict[str, float]
    choice: Choice
    trials: pd.DataFrame  # captioners (joined by `+`), a column for each score, `value`


def search_reranking(
    table: CandidateTable, value: np.ndarray, mixtures: list[list[str]], options: RerankingOptions
) -> RerankingFound:
    """Choose the weights of the scores and the group of captioners by the mean value of the chosen candidates.

    Weights are searched exactly for two scores; for more, on a grid of the simplex and then around its best point in
    ever smaller steps. The simplest setting is the first mixture with the paper's weights (`paper_weights`).

    Args:
        value: [C, K] of each candidate by the metric; higher is better.
        mixtures: groups of captioners, the simplest first.
    """
    names = table.score_names
    paper = paper_weights(list(table.scores))
    values, weightings, groups = [], [], []
    for group, captioners in enumerate(mixtures):
        mask = table.of_members(captioners).mask
        scores = np.stack([normalise(one, mask, options.normalisation) for one in table.stacked_scores])
        allowed = allowed_candidates(table.fluency_error, mask, options.fluency_threshold, options.fallback)
        tried = np.concatenate([paper[None], _weightings(scores, allowed, value, options.weight_steps)])
        weightings.append(tried)
        values.append(chosen_values(scores, allowed, value, tried))
        groups += [group] * len(tried)
    tried, of_clips = np.concatenate(weightings), np.concatenate(values)
    # whose candidates enter counts before how their scores are weighed
    complexity = 10.0 * np.array(groups) + np.sqrt(np.square(tried - paper).sum(1))
    choice = cross_validate(of_clips, complexity, options.rule, options.folds, options.seed)
    trials = pd.DataFrame(tried, columns=names).assign(value=of_clips.mean(1))
    trials.insert(0, MIXTURE, ["+".join(mixtures[group]) for group in groups])
    weights = dict(zip(names, tried[choice.index].tolist(), strict=True))
    return RerankingFound(mixtures[groups[choice.index]], weights, choice, trials)


def paper_weights(columns: Sequence[str]) -> np.ndarray:
    """Return the weights [S] of arXiv 2309.17352 for scores by column.

    They are 0.7 for the retrievers together, shared equally, and 0.3 for the decoder, which has all without retrievers;
    scores that the paper does not have weigh nothing.
    """
    encoders = sum(column.startswith(ENCODER) for column in columns)
    share = {DECODER: 1 - ENCODER_WEIGHT if encoders else 1.0}
    share |= {column: ENCODER_WEIGHT / encoders for column in columns if column.startswith(ENCODER)}
    return np.array([share.get(column, 0.0) for column in columns])


def encoder_share(weights: Mapping[str, float], retrievers: Collection[str]) -> float:
    """Return the retrievers' part of what they and the decoder weigh together; the paper's where that is nothing."""
    decoder = weight_name(DECODER)
    both = sum(weight for name, weight in weights.items() if name in retrievers or name == decoder)
    return 1 - weights[decoder] / both if both else ENCODER_WEIGHT


def mixtures_of(captioners: list[str]) -> list[list[str]]:
    """Return every group of captioners, all of them together first; only that one of more than MOST_MIXED."""
    if len(captioners) > MOST_MIXED:
        return [captioners]
    sizes = range(len(captioners), 0, -1)
    return [list(group) for size in sizes for group in combinations(captioners, size)]


def _weightings(scores: np.ndarray, allowed: np.ndarray, value: np.ndarray, steps: int) -> np.ndarray:
    """Return the weightings [W, S] worth comparing."""
    if len(scores) == 1:
        return np.ones((1, 1))
    if len(scores) == 2:
        curve = exact_two_score_search(scores[0], scores[1], allowed, value)
        middle = (curve.breakpoints[:-1] + curve.breakpoints[1:]) / 2
        return np.stack([middle, 1 - middle], 1)
    grid = simplex_grid(len(scores), steps)
    means = dense_weight_search(scores, allowed, value, grid)
    finer = refine(lambda w: dense_weight_search(scores, allowed, value, w), grid[means.argmax()], 0.5 / steps)
    return np.concatenate([grid, finer[1:]])
