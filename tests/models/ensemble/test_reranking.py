"""Choosing and normalising, against what they say they do."""

import numpy as np
import pytest

from models.ensemble.reranking import allowed_candidates, normalise, select
from models.ensemble.score_arrays import NoCandidateError, NonFiniteScoreError, RerankingInputError

from ..selection.test_weight_search import problem

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


def test_an_emptied_clip_keeps_its_best_candidate_or_its_most_fluent_one() -> None:
    error, scores = np.array([[0.99, 0.92, 0.95, 0.0]]), np.array([[[9.0, 1.0, 5.0, 99.0]]])
    mask = np.array([[True, True, True, False]])
    assert allowed_candidates(error, mask).tolist() == [[True, True, True, False]]
    assert select(scores, np.ones(1), error, mask).tolist() == [0]
    assert allowed_candidates(error, mask, fallback="most-fluent").tolist() == [[False, True, False, False]]
    assert select(scores, np.ones(1), error, mask, fallback="most-fluent").tolist() == [1]


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
    np.testing.assert_allclose(padded, np.array([[-1, 1, 0]]))


def test_z_of_equal_scores_is_not_rounding_noise() -> None:
    assert not normalise(np.full((1, 3), 0.1), np.ones((1, 3), bool), "z").any()


def test_rank_shares_ties() -> None:
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
    scaled = normalise(np.array([[5.0, 1.0, 5.0, -9.0], [2.0, 0, 0, 0]]), mask, "rank")
    np.testing.assert_allclose(scaled, [[0.75, 0.0, 0.75, 0.0], [0.0, 0.0, 0.0, 0.0]])


def test_softmax_sums_to_one_and_does_not_overflow() -> None:
    mask = np.array([[True, True, False]])
    scaled = normalise(np.array([[1000.0, 1000.0 + np.log(3), 2000.0]]), mask, "softmax")
    np.testing.assert_allclose(scaled, [[0.25, 0.75, 0]])


def test_none_leaves_scores_and_an_unknown_method_is_refused() -> None:
    scores, mask, _ = problem(1)
    np.testing.assert_array_equal(normalise(scores[0], mask, "none"), np.where(mask, scores[0], 0))
    with pytest.raises(RerankingInputError, match="max"):
        normalise(scores[0], mask, "max")
