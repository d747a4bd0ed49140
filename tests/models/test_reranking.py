"""Selection, normalisation and the weight searches, against plain loops."""

import numpy as np
import pytest

from models.reranking import (
    NoCandidateError,
    NonFiniteScoreError,
    RerankingInputError,
    allowed_candidates,
    dense_weight_search,
    exact_two_score_search,
    fuse,
    normalise,
    retrieval_weight_search,
    select,
    simplex_grid,
)
from models.retrieval_metrics import RetrievalInputError, retrieval_values


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


# --- choosing ------------------------------------------------------------------------------------------------------


def test_single_scores_give_their_own_order() -> None:
    scores, mask, _ = problem(0)
    for index in range(3):
        chosen = select(scores, np.eye(3)[index], np.zeros(mask.shape), mask)
        np.testing.assert_array_equal(chosen, np.where(mask, scores[index], -np.inf).argmax(1))


def test_the_filter_comes_before_the_scores_and_is_strict() -> None:
    scores = np.array([[[3.0, 2.0, 1.0]]])
    mask = np.ones((1, 3), bool)
    assert select(scores, np.ones(1), np.array([[0.95, 0.9, 0.0]]), mask).tolist() == [1]


def test_an_emptied_clip_keeps_its_most_fluent_candidate() -> None:
    error = np.array([[0.99, 0.92, 0.95, 0.0]])
    mask = np.array([[True, True, True, False]])
    assert allowed_candidates(error, mask).tolist() == [[False, True, False, False]]
    assert select(np.array([[[9.0, 1.0, 5.0, 99.0]]]), np.ones(1), error, mask).tolist() == [1]


def test_ties_take_the_first() -> None:
    scores = np.array([[[1.0, 2.0, 2.0]]])
    assert select(scores, np.ones(1), np.zeros((1, 3)), np.ones((1, 3), bool)).tolist() == [1]


def test_nan_counts_only_where_there_is_a_candidate() -> None:
    scores = np.array([[[1.0, np.nan]]])
    assert select(scores, np.ones(1), np.zeros((1, 2)), np.array([[True, False]])).tolist() == [0]
    with pytest.raises(NonFiniteScoreError, match="clip 0, candidate 1") as caught:
        select(scores, np.ones(1), np.zeros((1, 2)), np.ones((1, 2), bool))
    assert (caught.value.row, caught.value.column) == (0, 1)
    with pytest.raises(NonFiniteScoreError, match="fluency_error"):
        select(np.zeros((1, 1, 2)), np.ones(1), np.array([[0.0, np.nan]]), np.ones((1, 2), bool))


def test_a_clip_without_candidates_is_named() -> None:
    with pytest.raises(NoCandidateError, match="clip 1"):
        select(np.zeros((1, 2, 2)), np.ones(1), np.zeros((2, 2)), np.array([[True, False], [False, False]]))


# --- normalising ---------------------------------------------------------------------------------------------------


def test_z_is_of_the_clips_own_candidates() -> None:
    scaled = normalise(np.array([[1.0, 3.0, 100.0], [5.0, 5.0, 5.0]]), np.array([[1, 1, 0], [1, 1, 1]], bool), "z")
    np.testing.assert_allclose(scaled, [[-1, 1, 0], [0, 0, 0]])
    padded = normalise(np.array([[1.0, 3.0, np.nan]]), np.array([[True, True, False]]), "z")
    np.testing.assert_allclose(padded, [[-1, 1, 0]])


def test_z_of_equal_scores_is_not_rounding_noise() -> None:
    assert not normalise(np.full((1, 3), 0.1), np.ones((1, 3), bool), "z").any()


def test_rank_shares_ties() -> None:
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
    scaled = normalise(np.array([[5.0, 1.0, 5.0, -9.0], [2.0, 0, 0, 0]]), mask, "rank")
    np.testing.assert_allclose(scaled, [[0.75, 0, 0.75, 0], [0, 0, 0, 0]])


def test_softmax_sums_to_one_and_does_not_overflow() -> None:
    mask = np.array([[True, True, False]])
    scaled = normalise(np.array([[1000.0, 1000.0 + np.log(3), 2000.0]]), mask, "softmax")
    np.testing.assert_allclose(scaled, [[0.25, 0.75, 0]])


def test_none_leaves_scores_and_an_unknown_method_is_refused() -> None:
    scores, mask, _ = problem(1)
    np.testing.assert_array_equal(normalise(scores[0], mask, "none"), np.where(mask, scores[0], 0))
    with pytest.raises(RerankingInputError, match="max"):
        normalise(scores[0], mask, "max")


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
    grid = dense_weight_search(scores[:2], allowed, value, np.stack([weights, 1 - weights], 1))
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
    assert np.isfinite(dense_weight_search(scores, allowed, value, np.ones((1, 3)))).all()


def test_searches_refuse_nan_and_shapes() -> None:
    scores, allowed, value = problem(4)
    with pytest.raises(RerankingInputError, match="expected one"):
        exact_two_score_search(scores[0][:, 1:], scores[1], allowed, value)
    with pytest.raises(RerankingInputError, match="negative"):
        dense_weight_search(scores, allowed, value, np.array([[0.5, 0.7, -0.2]]))
    value[np.nonzero(allowed)[0][0], np.nonzero(allowed)[1][0]] = np.nan
    with pytest.raises(NonFiniteScoreError, match="value"):
        exact_two_score_search(scores[0], scores[1], allowed, value)


# --- grids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_dense_search_equals_select(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.reranking.CHUNK_CELLS", 20)
    scores, allowed, value = problem(5, clips=30, whole=whole)
    weightings = simplex_grid(3, 7)
    expected = [mean_value(scores, weights, allowed, value) for weights in weightings]
    np.testing.assert_allclose(dense_weight_search(scores, allowed, value, weightings), expected)


def test_simplex_grid() -> None:
    grid = simplex_grid(3, 4)
    assert grid.shape == (15, 3)
    assert len(np.unique(grid, axis=0)) == 15
    np.testing.assert_allclose(grid.sum(1), 1)
    assert (grid >= 0).all()
    assert simplex_grid(1, 5).tolist() == [[1.0]]
    np.testing.assert_allclose(simplex_grid(2, 2), [[0, 1], [0.5, 0.5], [1, 0]])
    with pytest.raises(RerankingInputError):
        simplex_grid(0, 3)


# --- retrievers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "z", "rank"])
def test_retrieval_search_equals_the_metric_of_the_fused_matrix(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.reranking.CHUNK_CELLS", 100)
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(30), 2)
    similarities = [np.round(rng.normal(size=(60, 30)) + 2 * np.eye(30)[target], 1) for _ in range(3)]
    weightings = simplex_grid(3, 4)
    expected = [retrieval_values(fuse(similarities, w, method), target).corpus["map@10"] for w in weightings]
    np.testing.assert_allclose(retrieval_weight_search(similarities, target, weightings, method), expected)
    assert len(set(expected)) > 5


def test_fuse_scales_each_query() -> None:
    small, large = np.array([[0.1, 0.2, 0.3]]), np.array([[300.0, 100.0, 200.0]])
    np.testing.assert_allclose(fuse([small, large], np.array([0.5, 0.5]), "rank"), [[0.5, 0.25, 0.75]])
    z = np.sqrt(1.5)
    np.testing.assert_allclose(fuse([small, large], np.array([1, 2]), "z"), [[z, -2 * z, z]], atol=1e-12)
    np.testing.assert_allclose(fuse([small, large], np.array([1, 1]), "none"), small + large)


def test_equal_float32_similarities_stay_equal() -> None:
    flat = np.full((1, 1000), 0.1, np.float32)
    assert not fuse([flat], np.ones(1), "z").any()


def test_fuse_refuses_what_does_not_fit() -> None:
    with pytest.raises(RerankingInputError, match="fit"):
        fuse([np.zeros((1, 2)), np.zeros((1, 3))], np.ones(2), "none")
    bad = np.zeros((3, 2))
    bad[2, 1] = np.nan
    with pytest.raises(NonFiniteScoreError, match="similarity 0 of query 2, item 1"):
        fuse([bad], np.ones(1), "none")
    with pytest.raises(NonFiniteScoreError, match="similarity 1 of query 2, item 1"):
        retrieval_weight_search([np.zeros((3, 2)), bad], np.zeros(3, int), np.ones((1, 2)), "none")
    with pytest.raises(RetrievalInputError, match="query 1"):
        retrieval_weight_search([np.zeros((3, 2))], np.array([0, 2, 0]), np.ones((1, 1)), "none")
    with pytest.raises(RerankingInputError, match="softmax"):
        fuse([np.zeros((1, 2))], np.ones(1), "softmax")
