"""The searches of reranking weights, against plain loops over `select`."""

import numpy as np
import pytest

from models.ensemble.reranking import select
from models.ensemble.score_arrays import NonFiniteScoreError, RerankingInputError
from models.selection.weight_search import (
    chosen_values,
    exact_two_score_search,
)

from .grids import simplex_grid


def problem(seed: int, clips: int = 9, candidates: int = 7, whole: bool = False) -> tuple[np.ndarray, ...]:
    """Scores [3, C, K], allowed [C, K], value [C, K]; whole-numbered scores are full of ties."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(3, clips, candidates))
    allowed = rng.random((clips, candidates)) < 0.7
    allowed[np.arange(clips), rng.integers(candidates, size=clips)] = True
    return np.round(scores) if whole else scores, allowed, rng.random((clips, candidates))


def mean_value(scores: np.ndarray, weights: np.ndarray, allowed: np.ndarray, value: np.ndarray) -> float:
    """Brute force: `select` with every allowed candidate fluent."""
    chosen = select(scores, weights, np.zeros(allowed.shape), allowed)
    return float(value[np.arange(len(chosen)), chosen].mean())


# --- the exact search ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_exact_search_equals_brute_force_inside_every_interval(seed: int) -> None:
    scores, allowed, value = problem(seed, clips=1 + seed % 12, candidates=1 + seed % 8, whole=seed % 3 == 0)
    pair = scores[:2]
    curve = exact_two_score_search(pair[0], pair[1], allowed, value)
    assert curve.breakpoints[0] == 0
    assert curve.breakpoints[-1] == 1
    assert (np.diff(curve.breakpoints) > 0).all()
    for left, right, found in zip(curve.breakpoints[:-1], curve.breakpoints[1:], curve.mean_values, strict=True):
        for w in (0.9 * left + 0.1 * right, (left + right) / 2, 0.1 * left + 0.9 * right):
            assert mean_value(pair, np.array([w, 1 - w]), allowed, value) == pytest.approx(found, abs=1e-12)
    assert mean_value(pair, np.array([curve.best_weight, 1 - curve.best_weight]), allowed, value) == pytest.approx(
        curve.best_value
    )


@pytest.mark.parametrize("seed", range(10))
def test_no_grid_finds_more(seed: int) -> None:
    scores, allowed, value = problem(seed, clips=40, candidates=12)
    curve = exact_two_score_search(scores[0], scores[1], allowed, value)
    # points on a corner are no part of any interval: random ones miss all of them
    weights = np.random.default_rng(seed).random(500)
    grid = chosen_values(scores[:2], allowed, value, np.stack([weights, 1 - weights], 1)).mean(1)
    assert grid.max() <= curve.best_value + 1e-12
    interval = np.searchsorted(curve.breakpoints, weights) - 1
    np.testing.assert_allclose(grid, curve.mean_values[interval])


def test_the_widest_of_equal_intervals_is_taken_in_its_middle() -> None:
    # lines 1 - w, 0.75 and 0.5 + w / 2 lead in turn
    encoder, decoder = np.array([[0.0, 0.75, 1.0]]), np.array([[1.0, 0.75, 0.5]])
    curve = exact_two_score_search(encoder, decoder, np.ones((1, 3), bool), np.array([[1.0, 0.0, 1.0]]))
    np.testing.assert_allclose(curve.breakpoints, [0, 0.25, 0.5, 1])
    np.testing.assert_allclose(curve.mean_values, [1, 0, 1])
    assert curve.best_weight == pytest.approx(0.75)


def test_nothing_to_search_is_one_interval() -> None:
    one = np.ones((3, 1))
    curve = exact_two_score_search(one, one, one.astype(bool), 2 * one)
    assert (curve.breakpoints.tolist(), curve.mean_values.tolist(), curve.best_weight) == ([0, 1], [2], 0.5)


def test_disallowed_candidates_may_hold_anything() -> None:
    scores, allowed, value = problem(3)
    bare = exact_two_score_search(scores[0], scores[1], allowed, value)
    for array in (*scores, value):
        array[~allowed] = np.nan
    full = exact_two_score_search(scores[0], scores[1], allowed, value)
    np.testing.assert_array_equal(bare.mean_values, full.mean_values)
    assert np.isfinite(chosen_values(scores, allowed, value, np.ones((1, 3)))).all()


def test_searches_refuse_nan_and_shapes() -> None:
    scores, allowed, value = problem(4)
    with pytest.raises(RerankingInputError, match="expected one"):
        exact_two_score_search(scores[0][:, 1:], scores[1], allowed, value)
    with pytest.raises(RerankingInputError, match="negative"):
        chosen_values(scores, allowed, value, np.array([[0.5, 0.7, -0.2]]))
    value[np.nonzero(allowed)[0][0], np.nonzero(allowed)[1][0]] = np.nan
    with pytest.raises(NonFiniteScoreError, match="value"):
        exact_two_score_search(scores[0], scores[1], allowed, value)


# --- grids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_values_of_weightings_equal_select(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.selection.weight_search.CHUNK_CELLS", 20)
    scores, allowed, value = problem(5, clips=30, whole=whole)
    weightings = simplex_grid(3, 7)
    expected = [mean_value(scores, weights, allowed, value) for weights in weightings]
    np.testing.assert_allclose(chosen_values(scores, allowed, value, weightings).mean(1), expected)


@pytest.mark.parametrize("seed", range(20))
def test_values_of_clips_are_those_that_select_takes(seed: int) -> None:
    scores, allowed, value = problem(seed, clips=1 + seed, candidates=1 + seed % 9, whole=seed % 2 == 0)
    weightings = np.random.default_rng(seed).dirichlet(np.ones(3), 11)
    found = chosen_values(scores, allowed, value, weightings)
    for weights, row in zip(weightings, found, strict=True):
        chosen = select(scores, weights, np.zeros(allowed.shape), allowed)
        np.testing.assert_array_equal(row, value[np.arange(len(chosen)), chosen])
