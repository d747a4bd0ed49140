"""Climbs along exact lines find weights of many scores."""

import numpy as np
import pytest

from models.selection.reranking_weights import RerankingOptions, RerankingProblem
from models.selection.retrieval_weights import RetrievalProblem
from models.selection.weight_problem import WeightProblem, climb, explore
from models.selection.weight_search import chosen_values

from .grids import simplex_grid
from .test_leave_one_out import table
from .test_retrieval_precisions import noisy


def reranking(clips: int = 60, normalisation: str = "z") -> RerankingProblem:
    known, value = table(clips)
    return RerankingProblem(known, value, normalisation, RerankingOptions())


def retrieval() -> RetrievalProblem:
    pair, target = noisy(3, decimals=9)
    poor = np.random.default_rng(0).normal(size=pair[0].shape)
    return RetrievalProblem([*pair, poor], target, "none")


def items() -> RetrievalProblem:
    pair, target = noisy(3, decimals=9)
    return RetrievalProblem([one.T for one in pair], target, "none", "audio-to-text")


PROBLEMS = [reranking, retrieval, items]


@pytest.mark.parametrize("make", PROBLEMS)
def test_the_value_of_a_line_is_that_of_its_point(make: type[WeightProblem]) -> None:
    problem = make()
    start, end = np.eye(len(problem.prior))[:2]
    point = problem.along(start, end)
    there = (1 - point.share) * start + point.share * end
    assert problem.of_clips(there).mean() == pytest.approx(point.value)
    for share in np.linspace(0.005, 0.995, 41):  # none between is better
        assert problem.of_clips((1 - share) * start + share * end).mean() <= point.value + 1e-9


@pytest.mark.parametrize("make", PROBLEMS)
def test_climbing_is_never_worse_than_its_start(make: type[WeightProblem]) -> None:
    problem, rng = make(), np.random.default_rng(0)
    start = rng.dirichlet(np.ones(len(problem.prior)))
    found = climb(problem, start, 4, rng)
    np.testing.assert_allclose(found.weights[0], start)
    assert (np.diff(found.values) > 0).all()
    for weights, value in zip(found.weights, found.values, strict=True):
        assert problem.of_clips(weights).mean() == pytest.approx(value)
        assert np.abs(weights).sum() == pytest.approx(1)


def test_climbing_is_as_good_as_a_fine_grid() -> None:
    problem = reranking()
    grid = chosen_values(problem.scores, problem.allowed, problem.value, simplex_grid(3, 40)).mean(1)
    assert explore(problem).values.max() >= grid.max() - 1e-9


@pytest.mark.parametrize("make", PROBLEMS)
def test_a_part_is_the_problem_of_its_clips(make: type[WeightProblem]) -> None:
    problem = make()
    weights = np.full(len(problem.prior), 1 / len(problem.prior))
    whole, rows = problem.of_clips(weights), np.array([4, 1, 1, 0])
    part = problem.part(rows)
    np.testing.assert_allclose(part.of_clips(weights), whole[rows])
    np.testing.assert_allclose(part.part(np.array([3])).of_clips(weights), whole[[0]])


def test_a_score_on_another_scale_gets_the_same_choices() -> None:
    known, value = table()
    known.scores["decoder_score"] *= 1e4
    found = explore(RerankingProblem(known, value, "none", RerankingOptions()))
    assert found.values.max() == pytest.approx(explore(reranking(normalisation="none")).values.max())


def test_only_a_score_of_either_sign_gets_a_negative_weight() -> None:
    problem = reranking()
    problem.scores[0] *= -1  # the good retriever is wrong about everything
    held = explore(problem)
    assert (held.weights >= 0).all()
    problem.either_sign = np.array([True, False, False])
    free = explore(problem)
    assert free.best[0] < -0.5
    assert free.values.max() > held.values.max()


@pytest.mark.parametrize("make", PROBLEMS)
def test_comparisons_are_of_better_with_worse(make: type[WeightProblem]) -> None:
    problem = make()
    pairs = problem.pairs(400, np.random.default_rng(0))
    assert len(pairs.importance) >= 40
    assert (pairs.importance > 0).all()
    assert (pairs.differences[:, 0] > 0).mean() > 0.7, "the first score is a good one"
