"""Choose how retrievers' similarities are normalised and weighed, on similarities with known targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pandas as pd

from ..ensemble.retrieval_fusion import RRF_K, RetrievalFusion, normalise_rows
from ..ensemble.score_arrays import RerankingInputError, refuse_non_finite, weighted_sum
from .retrieval_precisions import by_clip, exact_two_retriever_search, item_precisions, query_precisions
from .rules import AUTO, Comparison, Rule, Solution, compare
from .weight_problem import LinePoint, Pairs, WeightProblem
from .weight_surface import behind_best

Direction = Literal["text-to-audio", "audio-to-text"]
NORMALISATIONS = ("none", "z", "rank", "rrf")  # what `auto` compares
STARTS = 3
LINE_STEPS = 16  # of a line along which no exact search is known
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

    Attributes:
        scaled: [Q, N] of each of S retrievers, divided by `unit`.
        target: [Q] the item that each query describes.
        clip_of: [Q] the clip, of those that the problem is about, that each query belongs to.
        clips: their number.
    """

    def __init__(self, similarities: list[np.ndarray], target: np.ndarray, normalisation: str) -> None:
        # ranks and the like have one scale, and dividing them would make unequal what is equal
        plain = normalisation == "none"
        self.unit = np.array([(plain and float(np.sqrt(np.mean(one.var(1))))) or 1.0 for one in similarities])
        self.scaled = [one / unit if unit != 1 else one for one, unit in zip(similarities, self.unit, strict=True)]
        self.target = self.clip_of = np.asarray(target)
        self.clips = similarities[0].shape[1]
        self.prior = self.unit / self.unit.sum()  # equal weights of the similarities themselves
        self.either_sign = np.zeros(len(similarities), bool)

    def of_clips(self, weights: np.ndarray) -> np.ndarray:
        of_queries = query_precisions(self.scaled, self.target, weights[None], "none")
        values: np.ndarray = by_clip(of_queries, self.clip_of, self.clips)[0]
        return values

    def along(self, start: np.ndarray, end: np.ndarray) -> LinePoint:
        curve = exact_two_retriever_search(self._total(end), self._total(start), self.target, "none")
        return LinePoint(curve.best_weight, curve.best_value)

    def part(self, rows: np.ndarray) -> Self:
        queries = [np.flatnonzero(self.clip_of == row) for row in rows]
        chosen = np.concatenate(queries)
        return self._with(
            scaled=[one[chosen] for one in self.scaled],
            target=self.target[chosen],
            clip_of=np.repeat(np.arange(len(rows)), [len(some) for some in queries]),
            clips=len(rows),
        )

    def pairs(self, number: int, rng: np.random.Generator) -> Pairs:
        queries = rng.permutation(len(self.target))[: max(1, number // (2 * HARDEST))]
        right = np.arange(self.scaled[0].shape[1]) == self.target[queries][:, None]
        return self._against_wrong(queries, self.target[queries], right, rng)

    def _against_wrong(self, rows: np.ndarray, place: np.ndarray, right: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Compare cells (rows[p], place[p]) with wrong ones of their rows: those highest under the prior, and others.

        Args:
            right: [P, columns] bool, cells that are not wrong.
        """
        few = min(HARDEST, int((~right).sum(1).min()))
        if not few:
            return Pairs(np.empty((0, len(self.prior))), np.empty(0))
        hard = np.argpartition(np.where(right, np.inf, -self._total(self.prior)[rows]), few - 1, axis=1)[:, :few]
        drawn = np.argpartition(np.where(right, np.inf, rng.random(right.shape)), few - 1, axis=1)[:, :few]
        wrong = np.concatenate([hard, drawn], 1)
        differences = [one[rows, place][:, None] - one[rows[:, None], wrong] for one in self.scaled]
        return Pairs(np.stack(differences, -1).reshape(-1, len(self.scaled)), np.ones(wrong.size))

    def _total(self, weights: np.ndarray) -> np.ndarray:
        used = np.flatnonzero(weights)
        return weighted_sum([self.scaled[one] for one in used], weights[used])


class ItemProblem(RetrievalProblem):
    """The same where clips are the queries and captions are ranked; its similarities are transposed, [N, Q]."""

    def __init__(self, similarities: list[np.ndarray], target: np.ndarray, normalisation: str) -> None:
        super().__init__(similarities, target, normalisation)
        self.clips = len(similarities[0])
        self.rows = np.arange(self.clips)

    def of_clips(self, weights: np.ndarray) -> np.ndarray:
        found = item_precisions([one.T for one in self.scaled], self.target, weights[None], "none")
        values: np.ndarray = found[0][self.rows]
        return values

    def along(self, start: np.ndarray, end: np.ndarray) -> LinePoint:
        shares = np.linspace(0, 1, LINE_STEPS + 1)
        values = [float(self.of_clips((1 - share) * start + share * end).mean()) for share in shares]
        return LinePoint(float(shares[np.argmax(values)]), max(values))

    def part(self, rows: np.ndarray) -> Self:
        return self._with(rows=self.rows[rows], clips=len(rows))

    def pairs(self, number: int, rng: np.random.Generator) -> Pairs:
        theirs = rng.permutation(np.flatnonzero(np.isin(self.target, self.rows)))[: max(1, number // (2 * HARDEST))]
        clips = self.target[theirs]
        return self._against_wrong(clips, theirs, self.target == clips[:, None], rng)


def search_retrieval(
    similarities: dict[str, np.ndarray],
    target: np.ndarray,
    options: RetrievalOptions,
    direction: Direction = "text-to-audio",
) -> RetrievalFound:
    """Choose the retrievers' normalisation and weights by mAP@10.

    Compared, by nested cross-validation, are all rules under each normalisation, and each retriever alone: so the
    fusion is never chosen where, held out, a single retriever is better. Equal weights are the prior.

    Args:
        similarities: [Q, N] by the retriever's name.
        target: [Q] the clip that each query describes.

    Raises:
        RerankingInputError: retrievers differ in queries or clips; it names one of them.
        NonFiniteScoreError: naming the retriever.
    """
    _check(similarities)
    systems = _systems(similarities, target, options, direction)
    problems = {name: one.problem for name, one in systems.items()}
    found = compare(problems, options.rules, options.folds, options.seed, STARTS)
    best = found.best
    chosen = systems[best.problem]
    weights = dict.fromkeys(similarities, 0.0) | chosen.weights(best.weights)
    return RetrievalFound(
        fusion=RetrievalFusion(weights=weights, normalisation=chosen.normalisation, rrf_k=options.rrf_k),
        solution=best,
        best_value=found.best_value,
        systems=_compared(found, systems),
        trials=_tried(found, systems, options.seed),
    )


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
    kind = RetrievalProblem if direction == "text-to-audio" else ItemProblem
    names = list(similarities)

    def system(chosen: list[int], normalisation: str) -> _System:
        scaled = [normalise_rows(stacked[one], normalisation, options.rrf_k) for one in chosen]
        return _System([names[one] for one in chosen], normalisation, kind(scaled, target, normalisation))

    found = [system(list(range(len(names))), normalisation) for normalisation in normalisations]
    if len(names) > 1 and options.compare_single:
        found += [system([one], normalisations[0]) for one in range(len(names))]
    return {f"{'+'.join(one.retrievers)}, {one.normalisation}": one for one in found}


def _compared(found: Comparison, systems: dict[str, _System]) -> pd.DataFrame:
    best = found.best
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


def _tried(found: Comparison, systems: dict[str, _System], seed: int) -> pd.DataFrame:
    """Return the weightings of all retrievers tried under the normalisation chosen; of one retriever, the first one."""
    best = found.best
    key = best.problem if len(systems[best.problem].retrievers) > 1 else next(iter(systems))
    solved = [one.weights for one in found.solutions if one.problem == key]
    problem, inner = systems[key].problem, np.concatenate([found.explored[key].weights, solved])
    values = np.stack([problem.of_clips(weights) for weights in inner])
    behind = behind_best(values, seed=seed)
    return pd.DataFrame(problem.outer(inner), columns=systems[key].retrievers).assign(
        **{"map@10": values.mean(1), "behind": behind.delta, "low": behind.low, "high": behind.high},
        tied_with_best=behind.tied_with_best,
    )


def _check(similarities: dict[str, np.ndarray]) -> None:
    first = next(iter(similarities))
    expected = similarities[first].shape
    for name, one in similarities.items():
        if one.shape != expected:
            raise RerankingInputError(
                f"similarity [queries, clips] by {name}: {one.shape}, expected {expected} as by {first}"
            )
        refuse_non_finite(f"similarity by {name}", one, np.True_, ("query", "clip"))
