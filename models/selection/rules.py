"""Choose weights without being misled by luck: six rules, compared by nested cross-validation.

The highest of many noisy means is high by luck, too, the more so the more scores are weighed. Each rule finds weights
on some clips; its worth is the mean on clips that it has not seen, since the whole search is made anew without each
fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, get_args

import numpy as np

from .cross_validation import fold_numbers
from .weight_problem import STARTS, Explored, WeightProblem, climb, explore

Item = TypeVar("Item")
Result = TypeVar("Result")
Rule = Literal["prior", "one-standard-error", "best", "bagged", "centre", "learned"]
RULES: tuple[Rule, ...] = get_args(Rule)  # the simplest first
# What `auto` compares of retrieval. The highest of several cross-validated values is high by luck, too, and `best` is
# never ahead of `bagged` by more than that. `centre` is about what `bagged` is, and takes as long again.
AUTO: tuple[Rule, ...] = ("prior", "one-standard-error", "bagged", "learned")
RESAMPLES = 12
DIRECTIONS = 24  # in which the set of weights as good as the best is measured
RESAMPLED = 300  # clips of a resample, at most
STEPS = 32  # of the line from the prior to the best weights
COMPARISONS = 20_000
PENALTY = 1.0  # of a squared weight, in comparisons out of a thousand


class Mapper(Protocol):
    """Calls a function on every item and returns the results in order, as `map` does, wherever it likes."""

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item], /) -> Iterable[Result]: ...


@dataclass(frozen=True)
class Solution:
    """The weights that a rule finds on C clips."""

    problem: str  # its name among those that were compared
    rule: Rule
    weights: np.ndarray  # [S], their sizes sum to 1
    values: np.ndarray  # [C] of the clips that they were found on
    held_out: np.ndarray  # [C] of weights found in the same way without each clip's fold

    @property
    def value(self) -> float:
        return float(self.values.mean())

    @property
    def cross_validated(self) -> float:
        return float(self.held_out.mean())

    @property
    def optimism(self) -> float:
        """Return how far the value on the clips it was chosen on exceeds the cross-validated one."""
        return self.value - self.cross_validated


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared: a solution for each rule and problem, and the weightings that searches tried."""

    solutions: list[Solution]
    explored: dict[str, Explored]  # by problem

    @property
    def best_value(self) -> float:
        """Return the highest value of any weighting that was tried."""
        return max(float(one.values.max()) for one in self.explored.values())


def surpasses(one: Solution, other: Solution) -> bool:
    """Return whether a solution is better, held out, by more than one standard error of the paired difference."""
    gain = one.held_out - other.held_out
    return bool(gain.mean() > gain.std() / np.sqrt(len(gain)))


def highest(solutions: Sequence[Solution]) -> Solution:
    """Return the solution of the highest cross-validated value, the first of equals."""
    values = np.array([solution.cross_validated for solution in solutions])
    return solutions[int((values >= values.max() - 1e-12 * max(1.0, abs(values.max()))).argmax())]


@dataclass(frozen=True)
class NestedSearch:
    """How problems are solved with nested cross-validation.

    Attributes:
        rules: the simplest first.
        folds: of the clips, drawn with `seed`; at most as many as there are clips.
        starts: of each search.
    """

    rules: Sequence[Rule]
    folds: int
    seed: int
    starts: int = STARTS

    def solve(self, named: tuple[str, WeightProblem]) -> Comparison:
        """Solve one problem, given with its name, by each rule."""
        name, problem = named
        clips = np.arange(len(problem.of_clips(problem.prior)))
        fold_of = fold_numbers(len(clips), self.folds, self.seed)
        explored = self._explored(problem)
        applied = self.rules[:1] if len(problem.prior) == 1 else self.rules
        held_out = {rule: np.empty(len(clips)) for rule in applied}
        for fold in range(fold_of.max() + 1):
            seen, left = problem.part(clips[fold_of != fold]), problem.part(clips[fold_of == fold])
            found = self._explored(seen)
            for rule in applied:
                held_out[rule][fold_of == fold] = left.of_clips(weigh(seen, found, rule, self.seed))
        solutions = []
        for rule in applied:
            weights = weigh(problem, explored, rule, self.seed)
            solutions.append(Solution(name, rule, weights, problem.of_clips(weights), held_out[rule]))
        return Comparison(solutions, {name: explored})

    def _explored(self, problem: WeightProblem) -> Explored:
        """Climb where one of the rules needs that; else return the prior alone."""
        if {*self.rules} <= {"prior", "learned"}:
            return Explored(problem.prior[None], np.array([problem.of_clips(problem.prior).mean()]))
        return explore(problem, self.starts, self.seed)


def compare(problems: Mapping[str, WeightProblem], search: NestedSearch, each: Mapper = map) -> Comparison:
    """Solve problems over the same clips by each rule, with nested cross-validation.

    A problem of one score has nothing to search: its solution is that score.

    Args:
        problems: by name, the simplest first.
        each: solves them, side by side if it can.

    Raises:
        TooFewClipsError: fewer than three clips, or fewer than two folds.
    """
    solved = list(each(search.solve, list(problems.items())))
    return Comparison(
        [solution for one in solved for solution in one.solutions],
        {name: explored for one in solved for name, explored in one.explored.items()},
    )


def weigh(problem: WeightProblem, explored: Explored, rule: Rule, seed: int = 0) -> np.ndarray:
    """Return the weights [S] that a rule finds, their sizes summing to 1."""
    if len(problem.prior) == 1:
        return np.ones(1)
    found = _FINDERS[rule](problem, explored, seed)
    size = np.abs(found).sum()
    return found / size if size else problem.prior


def _prior(problem: WeightProblem, explored: Explored, seed: int) -> np.ndarray:
    return problem.prior


def _best(problem: WeightProblem, explored: Explored, seed: int) -> np.ndarray:
    return explored.best


def _one_standard_error(problem: WeightProblem, explored: Explored, seed: int) -> np.ndarray:
    """Take, between the prior and the best, the first weights within one standard error of the best."""
    return _within_one_standard_error(problem, problem.prior, explored.best)


def _centre(problem: WeightProblem, explored: Explored, seed: int) -> np.ndarray:
    """Average the farthest weights within one standard error of the best, in directions drawn at random.

    The best weights lie where luck put them in the set of those that the clips cannot tell from them.
    """
    rng, size = np.random.default_rng(seed), len(problem.prior)
    drawn = rng.dirichlet(np.ones(size), DIRECTIONS)
    drawn *= np.where(problem.either_sign, rng.choice([-1, 1], drawn.shape), 1)
    mean: np.ndarray = np.mean([_within_one_standard_error(problem, one, explored.best) for one in drawn], axis=0)
    return mean


def _within_one_standard_error(problem: WeightProblem, start: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Return the first weights from `start` to `best` that are at most one standard error below the best.

    Settings are compared clip by clip, so the error is that of the paired difference (Breiman et al. 1984).
    """
    highest = problem.of_clips(best)
    for share in np.linspace(0, 1, STEPS + 1)[:-1]:
        weights: np.ndarray = (1 - share) * start + share * best
        behind = highest - problem.of_clips(weights)
        if behind.mean() <= behind.std(ddof=1) / np.sqrt(len(behind)):
            return weights
    return best


def _bagged(problem: WeightProblem, explored: Explored, seed: int) -> np.ndarray:
    """Average the best weights of resampled clips: what is best by luck differs, and cancels out."""
    rng = np.random.default_rng(seed)
    clips, best = len(problem.of_clips(problem.prior)), explored.best
    found = []
    for _ in range(RESAMPLES):
        drawn = problem.part(rng.integers(clips, size=min(clips, RESAMPLED)))
        climbs = [climb(drawn, start, 2, rng) for start in (best, problem.prior)]
        found.append(max(climbs, key=lambda one: float(one.values.max())).best)
    mean: np.ndarray = np.mean(found, axis=0)
    return mean


def _learned(problem: WeightProblem, explored: Explored, seed: int) -> np.ndarray:
    """Learn by logistic regression which of two is the better one, from the differences of their scores."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    pairs = problem.pairs(COMPARISONS, np.random.default_rng(seed))
    if not len(pairs.importance):
        return problem.prior
    # every second comparison the other way round, for the regression wants to see both outcomes
    sign = np.where(np.arange(len(pairs.importance)) % 2, 1.0, -1.0)
    importance = pairs.importance * (1000 / pairs.importance.sum())
    model = LogisticRegression(C=1 / PENALTY, fit_intercept=False, max_iter=1000)
    model.fit(pairs.differences * sign[:, None], sign > 0, sample_weight=importance)
    weights: np.ndarray = model.coef_[0]
    return np.where(problem.either_sign, weights, weights.clip(0))


_FINDERS: dict[Rule, Callable[[WeightProblem, Explored, int], np.ndarray]] = {
    "prior": _prior,
    "one-standard-error": _one_standard_error,
    "best": _best,
    "bagged": _bagged,
    "centre": _centre,
    "learned": _learned,
}
