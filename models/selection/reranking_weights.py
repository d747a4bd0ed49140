"""Choose whose candidates enter and how their scores are weighed, on a candidate table with known values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, Self

import numpy as np
import pandas as pd

from ..ensemble.candidate_table import CandidateTable
from ..ensemble.reranking import Reranking, allowed_candidates, normalise
from ..ensemble.score_arrays import weighted_sum
from ..ensemble.scores.base import weight_name
from ..ensemble.scores.decoder import DECODER
from ..ensemble.scores.encoder import ENCODER
from ..ensemble.scores.registry import either_sign
from ..generation.pooling import BEAM, SAMPLES
from ..settings import Eligible, EncoderScoring, Fallback
from .rules import Comparison, Mapper, NestedSearch, Rule, Solution, compare, highest, surpasses, weigh
from .weight_problem import STARTS, LinePoint, Pairs, WeightProblem, explore
from .weight_search import check_search, line_curve

ENCODER_WEIGHT = 0.7  # in the paper (arXiv 2309.17352); the decoder has the rest
MIXTURE = "captioners"  # the column of trials that names whose candidates entered
MOST_MIXED = 6  # captioners of which every group is tried: 63 groups
COMPARED_GROUPS = 2  # of several captioners, but not all: those that are best under the prior weights
ELIGIBLE: dict[Eligible, str] = {"all": "", "samples": SAMPLES, "searched": BEAM}  # what is added to a source's name
NORMALISATIONS = ("none", "z", "rank")  # what `auto` compares
# The rules that `auto` compares: the more there are, the more often the highest cross-validated value is high by luck.
COMPARED_RULES: tuple[Rule, ...] = ("prior", "bagged")


@dataclass(frozen=True)
class RerankingOptions:
    """The options of `search_reranking`; the fields are those of an experiment's `search`."""

    normalisation: str = "none"
    fluency_threshold: float = 0.9
    rule: Rule | Literal["auto"] = "auto"
    folds: int = 5
    seed: int = 0
    encoder_score: EncoderScoring = "cosine"  # of the table that is searched
    fallback: Fallback = "best"
    starts: int = STARTS
    scores: tuple[str, ...] | None = None  # the kinds of scores that are weighed; None for all
    eligible: Eligible = "all"
    compare_groups: bool = True  # with each captioner alone and other mixtures; else the first mixture is solved

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return the rules that are compared."""
        return COMPARED_RULES if self.rule == "auto" else (self.rule,)

    def sources(self, captioners: Sequence[str]) -> list[str]:
        """Return what of some captioners can be chosen."""
        return [name + ELIGIBLE[self.eligible] for name in captioners]

    def restrict(self, table: CandidateTable, sources: Sequence[str]) -> CandidateTable:
        """Return the table with the candidates that can be chosen and the scores that are weighed."""
        own = table.of_members(sources)
        return own if self.scores is None else own.of_kinds(self.scores)


@dataclass(frozen=True)
class RerankingFound:
    """The reranking chosen, what it is worth, and all that was tried."""

    reranking: Reranking
    solution: Solution
    best_value: float  # the highest of any weighting
    systems: pd.DataFrame  # what was compared: captioners (joined by `+`), normalisation, rule, value, cross_validated
    trials: pd.DataFrame  # all weightings tried: captioners, a column for each score, `value`


class RerankingProblem(WeightProblem):
    """The weights of candidates' scores; those that are not normalised are divided by their deviation within clips.

    Attributes:
        scores: [S, C, K], divided by `unit`.
        allowed: [C, K] bool.
        value: [C, K] of each candidate.
    """

    def __init__(self, table: CandidateTable, value: np.ndarray, normalisation: str, options: RerankingOptions) -> None:
        scores = np.stack([normalise(one, table.mask, normalisation) for one in table.stacked_scores])
        self.allowed = allowed_candidates(table.fluency_error, table.mask, options.fluency_threshold, options.fallback)
        self.value = np.asarray(value, float)
        check_search(list(scores), self.allowed, self.value)
        # ranks and the like have one scale, and dividing them would make unequal what is equal
        self.unit = _deviation_within_clips(scores, self.allowed) if normalisation == "none" else np.ones(len(scores))
        self.scores = np.where(self.allowed, scores / self.unit[:, None, None], 0)
        columns = list(table.scores)
        self.either_sign = np.array([either_sign(column) for column in columns])
        prior = paper_weights(columns) * self.unit
        prior = prior if prior.any() else np.ones(len(columns))  # none of the paper's scores is weighed
        self.prior = prior / prior.sum()

    def of_clips(self, weights: np.ndarray) -> np.ndarray:
        chosen = np.where(self.allowed, weighted_sum(self.scores, weights), -np.inf).argmax(1)
        values: np.ndarray = self.value[np.arange(len(chosen)), chosen]
        return values

    def along(self, start: np.ndarray, end: np.ndarray) -> LinePoint:
        curve = line_curve(self._total(end), self._total(start), self.allowed, self.value)
        return LinePoint(curve.best_weight, curve.best_value)

    def part(self, rows: np.ndarray) -> Self:
        return self._with(scores=self.scores[:, rows], allowed=self.allowed[rows], value=self.value[rows])

    def pairs(self, number: int, rng: np.random.Generator) -> Pairs:
        several = np.flatnonzero(self.allowed.sum(1) > 1)
        if not len(several):
            return Pairs(np.empty((0, len(self.prior))), np.empty(0))
        clips = rng.choice(several, number)
        keys = np.where(self.allowed[clips], rng.random((number, self.allowed.shape[1])), -1)
        first, second = np.argsort(-keys, axis=1)[:, :2].T
        gain = self.value[clips, first] - self.value[clips, second]
        differences = (self.scores[:, clips, first] - self.scores[:, clips, second]).T * np.sign(gain)[:, None]
        return Pairs(differences[gain != 0], np.abs(gain[gain != 0]))

    def _total(self, weights: np.ndarray) -> np.ndarray:
        used = np.flatnonzero(weights)
        return weighted_sum(self.scores[used], weights[used])


def search_reranking(
    table: CandidateTable,
    value: np.ndarray,
    mixtures: list[list[str]],
    options: RerankingOptions,
    each: Mapper = map,
) -> RerankingFound:
    """Choose the weights of the scores and the group of captioners by the mean value of the chosen candidates.

    Compared, by nested cross-validation, are the rules on the first mixture, on each captioner's candidates alone, and
    on those of the other mixtures that are best under the prior weights; and each captioner's beam search. The first
    mixture is taken unless another one or a captioner alone is better by more than one standard error: what is ahead by
    less may be so by luck.

    Args:
        value: [C, K] of each candidate by the metric; higher is better.
        mixtures: groups of captioners, the simplest first.
        each: solves the groups, side by side if it can.
    """
    systems = _systems(table, value, mixtures, options)
    search = NestedSearch(options.rules, options.folds, options.seed, options.starts)
    found = compare({name: one.problem for name, one in systems.items()}, search, each)
    best = _preferred(found, {key for key, one in systems.items() if one.captioners == options.sources(mixtures[0])})
    chosen = systems[best.problem]
    reranking = Reranking(
        weights=dict(zip(chosen.names, chosen.problem.outer(best.weights).tolist(), strict=True)),
        normalisation=chosen.normalisation,
        fluency_threshold=options.fluency_threshold,
        captioners=chosen.captioners,
        encoder_score=options.encoder_score,
        fallback=options.fallback,
    )
    return RerankingFound(
        reranking, best, found.best_value, _compared(found, systems, best), _tried(found, systems, table.score_names)
    )


def weigh_group(
    table: CandidateTable, value: np.ndarray, captioners: list[str], options: RerankingOptions
) -> Reranking:
    """Return the reranking that a rule finds for one group, without cross-validation: of `auto`, one standard error."""
    rule: Rule = "one-standard-error" if options.rule == "auto" else options.rule
    normalisation = options.normalisation if options.normalisation != "auto" else NORMALISATIONS[0]
    sources = options.sources(captioners)
    own = options.restrict(table, sources)
    problem = RerankingProblem(own, value, normalisation, options)
    weights = weigh(problem, explore(problem, options.starts, options.seed), rule, options.seed)
    return Reranking(
        weights=dict(zip(own.score_names, problem.outer(weights).tolist(), strict=True)),
        normalisation=normalisation,
        fluency_threshold=options.fluency_threshold,
        captioners=sources,
        encoder_score=options.encoder_score,
        fallback=options.fallback,
    )


@dataclass(frozen=True)
class _System:
    """A problem and the setting that it belongs to."""

    captioners: list[str]
    normalisation: str
    names: list[str]  # of the weights
    problem: RerankingProblem

    @property
    def mixture(self) -> str:
        return "+".join(self.captioners)


def _systems(
    table: CandidateTable, value: np.ndarray, mixtures: list[list[str]], options: RerankingOptions
) -> dict[str, _System]:
    normalisations = NORMALISATIONS if options.normalisation == "auto" else (options.normalisation,)

    def system(captioners: list[str], normalisation: str, own: CandidateTable) -> _System:
        return _System(captioners, normalisation, own.score_names, RerankingProblem(own, value, normalisation, options))

    def of_group(captioners: list[str], normalisation: str) -> _System:
        sources = options.sources(captioners)
        return system(sources, normalisation, options.restrict(table, sources))

    if not options.compare_groups:
        return {"": of_group(mixtures[0], normalisations[0])}
    groups = [mixtures[0], *([name] for name in mixtures[0] if len(mixtures[0]) > 1)]
    always = [of_group(captioners, normalisation) for captioners in groups for normalisation in normalisations]
    others = [of_group(captioners, normalisations[0]) for captioners in mixtures[1:] if len(captioners) > 1]
    others.sort(key=lambda one: -float(one.problem.of_clips(one.problem.prior).mean()))
    beams = table.with_scores([weight_name(DECODER)])
    searched = [name + BEAM for name in mixtures[0] if options.eligible != "samples" and beams.proposes(name + BEAM)]
    alone = [system([source], "none", beams.of_members([source])) for source in searched]
    found = [*always, *others[:COMPARED_GROUPS], *alone]
    return {f"{one.mixture}, {one.normalisation}": one for one in found}


def _preferred(found: Comparison, whole: Collection[str]) -> Solution:
    """Return the best solution of the problems in `whole`, or of the others where that is clearly better."""
    own = [one for one in found.solutions if one.problem in whole]
    others = [one for one in found.solutions if one.problem not in whole]
    return rival if others and surpasses(rival := highest(others), highest(own)) else highest(own)


def _compared(found: Comparison, systems: Mapping[str, _System], best: Solution) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                MIXTURE: systems[one.problem].mixture,
                "normalisation": systems[one.problem].normalisation,
                "rule": one.rule,
                "value": one.value,
                "cross_validated": one.cross_validated,
                "chosen": one is best,
            }
            for one in found.solutions
        ]
    )


def _tried(found: Comparison, systems: Mapping[str, _System], names: list[str]) -> pd.DataFrame:
    """Return all weightings that searches went through, and those that rules found."""
    frames = []
    for key, explored in found.explored.items():
        system, solved = systems[key], [one for one in found.solutions if one.problem == key]
        inner = np.concatenate([explored.weights, [one.weights for one in solved]])
        frame = pd.DataFrame(system.problem.outer(inner), columns=system.names)
        frame["value"] = np.concatenate([explored.values, [one.value for one in solved]])
        frame.insert(0, MIXTURE, system.mixture)
        frame.insert(1, "normalisation", system.normalisation)
        frames.append(frame)
    tried = pd.concat(frames, ignore_index=True)
    return tried[[MIXTURE, "normalisation", *(name for name in names if name in tried), "value"]].fillna(0.0)


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
    return 1 - weights.get(decoder, 0.0) / both if both else ENCODER_WEIGHT


def mixtures_of(captioners: list[str]) -> list[list[str]]:
    """Return every group of captioners, all of them together first; only that one of more than MOST_MIXED."""
    if len(captioners) > MOST_MIXED:
        return [captioners]
    sizes = range(len(captioners), 0, -1)
    return [list(group) for size in sizes for group in combinations(captioners, size)]


def _deviation_within_clips(scores: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return the root mean square [S] of scores [S, C, K] about their clips' means; 1 where they do not differ."""
    count = allowed.sum(1, keepdims=True)
    centred = np.where(allowed, scores - np.where(allowed, scores, 0).sum(2, keepdims=True) / count, 0)
    deviation = np.sqrt(np.square(centred).sum((1, 2)) / count.sum())
    rounding = 1e-12 * np.abs(np.where(allowed, scores, 0)).max((1, 2))
    return np.where(deviation > rounding, deviation, 1.0)
