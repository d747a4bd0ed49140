"""Weights of several scores to choose, for any objective that is a mean over clips, by exact searches along lines.

Along a straight line between two weightings, the choice of a clip changes only at a few points, which are known exactly
(`weight_search`, `retrieval_precisions`). A climb goes along one score after the other, each time to the best point of
the whole line, so it needs no step size and is as good with ten scores as with two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

STARTS = 6  # of the climbs: the prior, the scores alone that are best, and some at random
PASSES = 4  # over all scores, at most
GAIN = 1e-9  # less is rounding


@dataclass(frozen=True)
class LinePoint:
    """The best point of a line between two weightings."""

    share: float  # 0 at the line's start, 1 at its end
    value: float


@dataclass(frozen=True)
class Pairs:
    """P comparisons of two things that could be chosen, for rules that learn from comparisons."""

    differences: np.ndarray  # [P, S] scores of the better one minus those of the other
    importance: np.ndarray  # [P], above 0


class WeightProblem(ABC):
    """Weights [S] of S scores to find on C clips. Scores are on one scale, so that weights can be compared.

    Attributes:
        unit: [S] what each score was divided by.
        prior: [S] the weights before any clip was seen.
        either_sign: [S] bool; weights of other scores are not negative.
    """

    unit: np.ndarray
    prior: np.ndarray
    either_sign: np.ndarray

    @abstractmethod
    def of_clips(self, weights: np.ndarray) -> np.ndarray:
        """Return the value [C] of each clip under weights [S]; higher is better."""

    @abstractmethod
    def along(self, start: np.ndarray, end: np.ndarray) -> LinePoint:
        """Return the best point of the line from weights `start` to `end`."""

    @abstractmethod
    def part(self, rows: np.ndarray) -> Self:
        """Return the problem on some clips; rows may repeat."""

    def outer(self, weights: np.ndarray) -> np.ndarray:
        """Return weights [..., S] of the scores before they were divided by `unit`, their sizes summing to 1."""
        scaled = weights / self.unit
        found: np.ndarray = scaled / np.abs(scaled).sum(-1, keepdims=True)
        return found

    def _with(self, **parts: Any) -> Self:
        """Return a copy with other attributes, which shares all else."""
        made = object.__new__(type(self))
        made.__dict__ = self.__dict__ | parts
        return made

    @abstractmethod
    def pairs(self, number: int, rng: np.random.Generator) -> Pairs:
        """Return about `number` comparisons, drawn at random where there are more."""


@dataclass(frozen=True)
class Explored:
    """All weightings that climbs went through."""

    weights: np.ndarray  # [W, S]
    values: np.ndarray  # [W] means over the clips

    @property
    def best(self) -> np.ndarray:
        """Return the weights [S] of the highest value, the first of equals."""
        highest: np.ndarray = self.weights[int((self.values >= self.values.max() - GAIN).argmax())]
        return highest


def explore(problem: WeightProblem, starts: int = STARTS, seed: int = 0) -> Explored:
    """Climb from the prior, from the best single scores and from random weights; the prior is the first row.

    Args:
        starts: number of climbs.
    """
    rng, size = np.random.default_rng(seed), len(problem.prior)
    alone = sorted(np.eye(size), key=lambda one: -float(problem.of_clips(one).mean()))
    first = [problem.prior, *alone[: (starts - 1) // 2]]
    drawn = rng.dirichlet(np.ones(size), max(starts - len(first), 0))
    climbs = [climb(problem, start, PASSES, rng) for start in [*first, *drawn][:starts]]
    return Explored(np.concatenate([one.weights for one in climbs]), np.concatenate([one.values for one in climbs]))


def climb(problem: WeightProblem, start: np.ndarray, passes: int, rng: np.random.Generator) -> Explored:
    """Go along each score in turn to the best point of its line, until a pass over all scores gains nothing.

    The line of a score goes from the other scores' weights alone to this score alone, or to its negative.
    """
    here, value = _unit(start), float(problem.of_clips(start).mean())
    weights, values = [here], [value]
    for _ in range(passes):
        before = value
        for score in rng.permutation(len(start)):
            others = here.copy()
            others[score] = 0.0
            if not others.any():
                continue
            for sign in (1.0, -1.0) if problem.either_sign[score] else (1.0,):
                end = np.zeros(len(start))
                end[score] = sign
                point = problem.along(_unit(others), end)
                if point.value > value + GAIN:
                    here = _unit((1 - point.share) * _unit(others) + point.share * end)
                    value = float(problem.of_clips(here).mean())  # not the line's: rounding may break a tie otherwise
                    weights.append(here)
                    values.append(value)
        if value <= before + GAIN:
            break
    return Explored(np.array(weights), np.array(values))


def _unit(weights: np.ndarray) -> np.ndarray:
    """Scale weights so that their sizes sum to 1."""
    scaled: np.ndarray = weights / np.abs(weights).sum()
    return scaled
