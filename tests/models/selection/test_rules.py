"""What rules find, and what they are worth on clips that they have not seen."""

from typing import Self

import numpy as np
import pytest

from models.errors import TooFewClipsError
from models.selection.rules import RULES, NestedSearch, Rule, compare, highest, weigh
from models.selection.weight_problem import Explored, LinePoint, Pairs, WeightProblem, explore

from .test_weight_problem import PROBLEMS, reranking, retrieval


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_finds_the_good_score(rule: Rule) -> None:
    problem = reranking(120)
    weights = weigh(problem, explore(problem), rule)
    assert np.abs(weights).sum() == pytest.approx(1)
    value = problem.of_clips(weights).mean()
    assert value >= problem.of_clips(problem.prior).mean() - 1e-9
    if rule != "prior":
        assert weights[0] == max(weights), "the retriever that sees which captions are good"
        assert weights[1] < 0.3, "the retriever that sees nothing"


def test_one_standard_error_stays_near_the_prior() -> None:
    problem = reranking(120)
    explored = explore(problem)
    careful, best = (weigh(problem, explored, rule) for rule in ("one-standard-error", "best"))
    assert np.abs(careful - problem.prior).sum() <= np.abs(best - problem.prior).sum()
    behind = problem.of_clips(best) - problem.of_clips(careful)
    assert behind.mean() <= behind.std(ddof=1) / np.sqrt(len(behind)) + 1e-12


class Plateau(WeightProblem):
    """Three clips that are right where the first of two weights is in the middle."""

    def __init__(self) -> None:
        self.unit, self.prior, self.either_sign = np.ones(2), np.full(2, 0.5), np.zeros(2, bool)

    def of_clips(self, weights: np.ndarray) -> np.ndarray:
        return np.full(3, float(0.3 <= weights[0] <= 0.9))

    def along(self, start: np.ndarray, end: np.ndarray) -> LinePoint:
        raise NotImplementedError

    def part(self, rows: np.ndarray) -> Self:
        raise NotImplementedError

    def pairs(self, number: int, rng: np.random.Generator) -> Pairs:
        raise NotImplementedError


@pytest.mark.parametrize("best", [0.3, 0.9])
def test_the_centre_is_in_the_middle_of_what_is_as_good_as_the_best(best: float) -> None:
    explored = Explored(np.array([[best, 1 - best]]), np.ones(1))
    for seed in range(5):
        assert weigh(Plateau(), explored, "centre", seed)[0] == pytest.approx(0.57, abs=0.1)


def test_the_held_out_fold_has_no_part_in_the_search() -> None:
    problem = reranking(40)
    before = compare({"a": problem}, NestedSearch(["best"], 4, 0)).solutions[0]
    problem.value = problem.value.copy()
    problem.value[3] = problem.value[3][::-1] * 50  # decides every search that sees it
    after = compare({"a": problem}, NestedSearch(["best"], 4, 0)).solutions[0]
    chosen = np.unique(np.flatnonzero(before.held_out != after.held_out))
    fold = np.random.default_rng(0).permutation(np.arange(40) % 4)
    unseen = np.flatnonzero(fold == fold[3])
    assert 3 in chosen
    assert set(unseen) & set(chosen) <= {3}, "clips of its own fold are valued by weights that did not see it"


@pytest.mark.parametrize("make", PROBLEMS)
def test_the_same_seed_finds_the_same(make: type) -> None:
    one, two = (compare({"a": make()}, NestedSearch(RULES, 3, 5)) for _ in range(2))
    for first, second in zip(one.solutions, two.solutions, strict=True):
        np.testing.assert_array_equal(first.weights, second.weights)
        np.testing.assert_array_equal(first.held_out, second.held_out)


def test_the_best_is_the_simplest_of_equals() -> None:
    problem = retrieval()
    found = compare({"a": problem, "twin": problem}, NestedSearch(["prior", "best"], 5, 0))
    best = highest(found.solutions)
    assert best.problem == "a"
    assert best.cross_validated == max(one.cross_validated for one in found.solutions)
    assert found.best_value >= best.value


def test_too_few_clips() -> None:
    with pytest.raises(TooFewClipsError, match="2 clips"):
        compare({"a": reranking(2)}, NestedSearch(["best"], 5, 0))
