"""Choose how retrievers' similarities are normalised and weighed, on similarities with known targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pandas as pd

from ..ensemble.retrieval_fusion import RRF_K, RetrievalFusion, normalise_rows
from ..ensemble.score_arrays import RerankingInputError, refuse_non_finite, weighted_sum
from ..metrics.retrieval import check_target
from .retrieval_precisions import RightAnswers, ranges
from .rules import AUTO, Comparison, NestedSearch, Rule, Solution, compare, highest
from .weight_problem import LinePoint, Pairs, WeightProblem
from .weight_surface import behind_best

Direction = Literal["text-to-audio", "audio-to-text"]
NORMALISATIONS = ("none", "z", "rank", "rrf")  # what `auto` compares
RANKS = ("rank", "rrf")  # which forget by how much a clip leads
ERRORS = 2.0  # standard errors by which ranks are to be better
STARTS = 3
HARDEST = 10  # wrong clips of a query that rules learn from


@dataclass(frozen=True)
class RetrievalOptions:
    """The options of `search_retrieval`; the fields are those of an experiment's `search`."""

    normalisation: str = "none"
    rrf_k: float = RRF_K
    rule: Rule | Literal["auto"] = "auto"
    folds: int = 5
    seed: int = 0
    compare_single: bool = True  # with each retriever alone

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return the rules that are compared."""
        return AUTO if self.rule == "auto" else (self.rule,)


@dataclass(frozen=True)
class RetrievalFound:
    """The fusion chosen, what it is worth, and all that was tried."""

    fusion: RetrievalFusion
    solution: Solution
    best_value: float  # the highest of any weighting
    systems: pd.DataFrame  # what was compared: retrievers (joined by `+`), normalisation, rule, value, cross_validated
    trials: pd.DataFrame  # weightings tried under the normalisation chosen: a column for each retriever, `map@10`, and
    # by how much the best exceeds it (`behind_best`)


class RetrievalProblem(WeightProblem):
    """The weights of similarities; those that are not normalised are divided by their deviation within queries.

    Queries are the rows: captions, or of audio to text clips.

    Attributes:
        scaled: [rows, columns] of each of S retrievers, divided by `unit`.
        target: [A] the clip that each caption describes.
        clip_of: [A] its place among the clips that the problem is about.
        clips: their number.
    """

    def __init__(
        self,
        similarities: list[np.ndarray],
        target: np.ndarray,
        normalisation: str,
        direction: Direction = "text-to-audio",
    ) -> None:
        # ranks and the like have one scale, and dividing them would make unequal what is equal
        plain = normalisation == "none"
        self.unit = np.array([(plain and float(np.sqrt(np.mean(one.var(1))))) or 1.0 for one in similarities])
        self.scaled = [one / unit if unit != 1 else one for one, unit in zip(similarities, self.unit, strict=True)]
        self.prior = self.unit / self.unit.sum()  # equal weights of the similarities themselves
        self.either_sign = np.zeros(len(similarities), bool)
        self.backwards = direction == "audio-to-text"
        self.described = np.asarray(target) if self.backwards else np.arange(similarities[0].shape[1])  # by columns
        self.clips = similarities[0].shape[0 if self.backwards else 1]
        captions = np.argsort(target, kind="stable")  # those of a clip side by side
        self.target = self.clip_of = np.asarray(target)[captions]
        self.rows: np.ndarray = self.target if self.backwards else captions
        self.columns: np.ndarray = captions if self.backwards else self.target
        self.answers = RightAnswers.among(self.scaled, self.rows, self.columns, self._queries())

    def of_clips(self, weights: np.ndarray) -> np.ndarray:
        sums = np.bincount(self.clip_of, self.answers.precisions(weights), minlength=self.clips)
        values: np.ndarray = sums * (self.clips / self._number)
        return values

    def along(self, start: np.ndarray, end: np.ndarray) -> LinePoint:
        curve = self.answers.along(start, end, self._number)
        return LinePoint(curve.best_weight, curve.best_value)

    def part(self, rows: np.ndarray) -> Self:
        captions = np.bincount(self.clip_of, minlength=self.clips)
        clip_of, chosen = ranges((np.cumsum(captions) - captions)[rows], captions[rows])
        made = self._with(
            target=self.target[chosen],
            rows=self.rows[chosen],
            columns=self.columns[chosen],
            clip_of=clip_of,
            clips=len(rows),
        )
        made.answers = self.answers.part(chosen, made._queries())
        return made

    def pairs(self, number: int, rng: np.random.Generator) -> Pairs:
        """Compare right answers with wrong ones of their queries: those highest under the prior, and others."""
        some = rng.permutation(len(self.target))[: max(1, number // (2 * HARDEST))]
        right = self.described == self.target[some][:, None]
        few = min(HARDEST, int((~right).sum(1).min()))
        if not few:
            return Pairs(np.empty((0, len(self.prior))), np.empty(0))
        rows = self.rows[some]
        total = weighted_sum([one[rows] for one in self.scaled], self.prior)
        hard = np.argpartition(np.where(right, np.inf, -total), few - 1, axis=1)[:, :few]
        drawn = np.argpartition(np.where(right, np.inf, rng.random(right.shape)), few - 1, axis=1)[:, :few]
        wrong = np.concatenate([hard, drawn], 1)
        differences = [one[rows, self.columns[some]][:, None] - one[rows[:, None], wrong] for one in self.scaled]
        return Pairs(np.stack(differences, -1).reshape(-1, len(self.scaled)), np.ones(wrong.size))

    @property
    def _number(self) -> int:
        """Return the number of queries; a clip without captions is one whose value is 0."""
        return self.clips if self.backwards else len(self.target)

    def _queries(self) -> np.ndarray:
        return self.clip_of if self.backwards else np.arange(len(self.target))


def search_retrieval(
    similarities: dict[str, np.ndarray],
    target: np.ndarray,
    options: RetrievalOptions,
    direction: Direction = "text-to-audio",
) -> RetrievalFound:
    """Choose the retrievers' normalisation and weights by mAP@10.

    Compared, by nested cross-validation, are all rules under each normalisation, and each retriever alone: so the
    fusion is never chosen where, held out, a single retriever is better. Ranks are chosen only where they are better by
    two standard errors: the more is compared on few clips, the more often luck decides. Equal weights are the prior.

    Args:
        similarities: [Q, N] by the retriever's name.
        target: [Q] the clip that each query describes.

    Raises:
        RerankingInputError: retrievers differ in queries or clips; it names one of them.
        NonFiniteScoreError: naming the retriever.
        RetrievalInputError: a target that is not a clip.
    """
    _check(similarities, target)
    systems = _systems(similarities, target, options, direction)
    problems = {name: one.problem for name, one in systems.items()}
    found = compare(problems, NestedSearch(options.rules, options.folds, options.seed, STARTS))
    best = careful_best(found.solutions, {name: one.normalisation for name, one in systems.items()})
    chosen = systems[best.problem]
    weights = dict.fromkeys(similarities, 0.0) | chosen.weights(best.weights)
    return RetrievalFound(
        fusion=RetrievalFusion(weights=weights, normalisation=chosen.normalisation, rrf_k=options.rrf_k),
        solution=best,
        best_value=found.best_value,
        systems=_compared(found, systems, best),
        trials=_tried(found, systems, best, options.seed),
    )


def careful_best(solutions: Sequence[Solution], normalisations: Mapping[str, str]) -> Solution:
    """Return the best solution, one by ranks only where it is better than all others by two standard errors.

    Args:
        normalisations: by problem.
    """
    others = [one for one in solutions if normalisations[one.problem] not in RANKS]
    if not others:
        return highest(solutions)
    best = highest(others)
    by_ranks = [one for one in solutions if normalisations[one.problem] in RANKS]
    return highest([best, *(one for one in by_ranks if _exceeds(one.held_out - best.held_out))])


def _exceeds(ahead: np.ndarray) -> bool:
    return bool(ahead.mean() > ERRORS * ahead.std(ddof=1) / np.sqrt(len(ahead)))


@dataclass(frozen=True)
class _System:
    """A problem and the setting that it belongs to."""

    retrievers: list[str]
    normalisation: str
    problem: RetrievalProblem

    def weights(self, found: np.ndarray) -> dict[str, float]:
        """Return the weight of each retriever."""
        return dict(zip(self.retrievers, self.problem.outer(found).tolist(), strict=True))


def _systems(
    similarities: dict[str, np.ndarray], target: np.ndarray, options: RetrievalOptions, direction: Direction
) -> dict[str, _System]:
    normalisations = NORMALISATIONS if options.normalisation == "auto" else (options.normalisation,)
    # normalised once; what follows weighs raw arrays
    stacked = [one if direction == "text-to-audio" else one.T for one in similarities.values()]
    names = list(similarities)

    def system(chosen: list[int], normalisation: str) -> _System:
        scaled = [normalise_rows(stacked[one], normalisation, options.rrf_k) for one in chosen]
        return _System(
            [names[one] for one in chosen], normalisation, RetrievalProblem(scaled, target, normalisation, direction)
        )

    found = [system(list(range(len(names))), normalisation) for normalisation in normalisations]
    if len(names) > 1 and options.compare_single:
        found += [system([one], normalisations[0]) for one in range(len(names))]
    return {f"{'+'.join(one.retrievers)}, {one.normalisation}": one for one in found}


def _compared(found: Comparison, systems: dict[str, _System], best: Solution) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "retrievers": "+".join(systems[one.problem].retrievers),
                "normalisation": systems[one.problem].normalisation,
                "rule": one.rule,
                "value": one.value,
                "cross_validated": one.cross_validated,
                "chosen": one is best,
            }
            for one in found.solutions
        ]
    )


def _tried(found: Comparison, systems: dict[str, _System], best: Solution, seed: int) -> pd.DataFrame:
    """Return the weightings of all retrievers tried under the normalisation chosen; of one retriever, the first one."""
    key = best.problem if len(systems[best.problem].retrievers) > 1 else next(iter(systems))
    solved = [one.weights for one in found.solutions if one.problem == key]
    problem, inner = systems[key].problem, np.concatenate([found.explored[key].weights, solved])
    values = np.stack([problem.of_clips(weights) for weights in inner])
    behind = behind_best(values, seed=seed)
    return pd.DataFrame(problem.outer(inner), columns=systems[key].retrievers).assign(
        **{"map@10": values.mean(1), "behind": behind.delta, "low": behind.low, "high": behind.high},
        tied_with_best=behind.tied_with_best,
    )


def _check(similarities: dict[str, np.ndarray], target: np.ndarray) -> None:
    first = next(iter(similarities))
    expected = similarities[first].shape
    for name, one in similarities.items():
        if one.shape != expected:
            raise RerankingInputError(
                f"similarity [queries, clips] by {name}: {one.shape}, expected {expected} as by {first}"
            )
        refuse_non_finite(f"similarity by {name}", one, np.True_, ("query", "clip"))
    check_target(similarities[first], np.asarray(target))
