"""Joining retrievers and searching its weights, against plain loops."""

import numpy as np
import pytest

from models.ensemble.retrieval_fusion import fuse, normalise_rows
from models.ensemble.score_arrays import NonFiniteScoreError, RerankingInputError
from models.metrics.retrieval import relevant_of, retrieval_values, retrieval_values_in_blocks
from models.selection.retrieval_precisions import RightAnswers
from models.selection.weight_search import TwoScoreCurve

from .grids import simplex_grid


def answers(similarities: list[np.ndarray], target: np.ndarray) -> RightAnswers:
    """The right clips of captions."""
    captions = np.arange(len(target))
    return RightAnswers.among(similarities, captions, target, captions)


def own_captions(similarities: list[np.ndarray], target: np.ndarray) -> RightAnswers:
    """The right captions of clips."""
    captions = np.argsort(target, kind="stable")
    clips = np.asarray(target)[captions]
    return RightAnswers.among([one.T for one in similarities], clips, captions, clips)


def whole_curve(pair: list[np.ndarray], target: np.ndarray) -> TwoScoreCurve:
    """The curve over the weight of the first of two."""
    return answers(pair, target).along(np.array([0.0, 1.0]), np.array([1.0, 0.0]), len(target))


@pytest.mark.parametrize("method", ["none", "z", "rank", "rrf"])
def test_precisions_are_those_of_ranking_all_clips(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.selection.retrieval_precisions.CHUNK_CELLS", 100)
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(30), 2)
    similarities = [np.round(rng.normal(size=(60, 30)) + 2 * np.eye(30)[target], 1) for _ in range(3)]
    weightings = simplex_grid(3, 4)
    expected = [retrieval_values(fuse(similarities, w, method), target).average_precision for w in weightings]
    known = answers([normalise_rows(one, method) for one in similarities], target)
    np.testing.assert_array_equal([known.precisions(w) for w in weightings], expected)
    assert len({one.mean() for one in expected}) > 5
    assert 0 < known.number.sum() < 60 * 29


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_precisions_of_clips_are_those_of_ranking_all_captions(decimals: int) -> None:
    """With ties, too; captions are in any order, and a clip has any number of them, one of them none."""
    rng = np.random.default_rng(decimals)
    target = np.minimum(rng.integers(0, 20, 70), 18)
    similarities = [np.round(rng.normal(size=(70, 20)) + 1.5 * np.eye(20)[target], decimals) for _ in range(3)]
    known = own_captions(similarities, target)
    for w in simplex_grid(3, 4):
        fused = fuse([one.T for one in similarities], w, "none")
        found = np.bincount(known.group, known.precisions(w), minlength=20)
        np.testing.assert_allclose(found, values_of_clips(fused, target), atol=1e-12)


def values_of_clips(fused: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The average precision at 10 of every clip in finding its own captions; 0 where it has none."""
    described = np.unique(target)
    right, values = relevant_of(target, len(fused)), np.zeros(len(fused))
    for clip in described:
        alone = retrieval_values_in_blocks(fused[[clip]].__getitem__, right[[clip]], len(target), ap_over="all")
        values[clip] = alone.corpus["map@10"]
    return values


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
    with pytest.raises(RerankingInputError, match="softmax"):
        fuse([np.zeros((1, 2))], np.ones(1), "softmax")


def noisy(seed: int, queries_each: int = 2, items: int = 25, decimals: int = 3) -> tuple[list[np.ndarray], np.ndarray]:
    """Two similarities [Q, N] with ties, and targets."""
    rng = np.random.default_rng(seed)
    target = rng.permutation(np.repeat(np.arange(items), queries_each))
    right = 1.5 * np.eye(items)[target]
    return [np.round(rng.normal(size=right.shape) + right, decimals) for _ in range(2)], target


@pytest.mark.parametrize("method", ["none", "z", "rank", "rrf"])
@pytest.mark.parametrize("seed", range(8))
def test_the_exact_curve_equals_brute_force_inside_every_interval(
    seed: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.selection.retrieval_precisions.CHUNK_CELLS", 100)
    pair, target = noisy(seed, queries_each=1 + seed % 3, items=3 + 6 * (seed % 4), decimals=seed % 3)
    curve = whole_curve([normalise_rows(one, method) for one in pair], target)
    assert (np.diff(curve.breakpoints) > 0).all()
    wide = np.diff(curve.breakpoints) > 1e-6  # in narrower ones rounding decides
    middle = ((curve.breakpoints[:-1] + curve.breakpoints[1:]) / 2)[wide]
    for w, found in zip(middle, curve.mean_values[wide], strict=True):
        expected = retrieval_values(fuse(pair, np.array([w, 1 - w]), method), target).corpus["map@10"]
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_no_grid_finds_more_than_the_exact_search(seed: int) -> None:
    pair, target = noisy(seed, decimals=9)
    known, curve = answers(pair, target), whole_curve(pair, target)
    weights = np.random.default_rng(seed).random(400)
    grid = np.array([known.precisions(np.array([w, 1 - w])).mean() for w in weights])
    np.testing.assert_allclose(grid, curve.mean_values[np.searchsorted(curve.breakpoints, weights) - 1])
    assert curve.best_value >= grid.max() - 1e-12


@pytest.mark.parametrize("seed", range(8))
def test_the_curve_of_clips_is_exact_though_their_captions_overtake_each_other(seed: int) -> None:
    pair, target = noisy(seed, queries_each=1 + seed % 4, items=12, decimals=[9, 1][seed % 2])
    known = own_captions(pair, target)
    start, end = np.array([0.2, 0.8]), np.array([1.0, 0.0])
    curve = known.along(start, end, 12)
    wide = np.diff(curve.breakpoints) > 1e-6
    middle = ((curve.breakpoints[:-1] + curve.breakpoints[1:]) / 2)[wide]
    assert len(middle) > 20
    for share, found in zip(middle, curve.mean_values[wide], strict=True):
        fused = fuse([one.T for one in pair], (1 - share) * start + share * end, "none")
        assert found == pytest.approx(np.mean(values_of_clips(fused, target)), abs=1e-12)


def test_reciprocal_ranks_are_of_the_highest_first() -> None:
    fused = fuse([np.array([[0.1, 0.9, 0.5]]), np.array([[3.0, 2.0, 2.0]])], np.array([1.0, 1.0]), "rrf", rrf_k=60)
    np.testing.assert_allclose(fused, [[1 / 63 + 1 / 61, 1 / 61 + 1 / 62.5, 1 / 62 + 1 / 62.5]])


def test_audio_to_text_by_hand() -> None:
    # captions 0, 1 and 3 are of item 0, caption 2 of item 1; ranks of item 0's own: 1, 3 (a tie loses), 4
    similarity = np.array([[0.9, 0.1], [0.5, 0.2], [0.5, 0.3], [0.1, 0.9]])
    found = own_captions([similarity], np.array([0, 0, 1, 0])).precisions(np.ones(1))
    np.testing.assert_allclose(found, [1 / 3, 2 / 3 / 3, 3 / 4 / 3, 1 / 2])


def test_an_answer_that_ten_others_always_precede_has_no_rivals() -> None:
    similarities = [np.array([np.r_[0.5, np.linspace(1, 2, ahead), -1.0]]) for ahead in (10, 10)]
    similarities[1][0, -1] = 9
    known = answers(similarities, np.array([0]))
    assert (known.ahead.tolist(), known.number.tolist()) == ([10], [0])
