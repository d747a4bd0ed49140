"""Joining retrievers and searching its weights, against plain loops."""

import numpy as np
import pytest

from models.ensemble.retrieval_fusion import fuse
from models.ensemble.score_arrays import NonFiniteScoreError, RerankingInputError
from models.metrics.retrieval import RetrievalInputError, retrieval_values
from models.selection.retrieval_precisions import (
    by_clip,
    exact_two_retriever_search,
    item_precisions,
    query_precisions,
)

from .grids import simplex_grid


@pytest.mark.parametrize("method", ["none", "z", "rank", "rrf"])
def test_retrieval_search_equals_the_metric_of_the_fused_matrix(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.selection.retrieval_precisions.CHUNK_CELLS", 100)
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(30), 2)
    similarities = [np.round(rng.normal(size=(60, 30)) + 2 * np.eye(30)[target], 1) for _ in range(3)]
    weightings = simplex_grid(3, 4)
    expected = [retrieval_values(fuse(similarities, w, method), target).corpus["map@10"] for w in weightings]
    np.testing.assert_allclose(query_precisions(similarities, target, weightings, method).mean(1), expected)
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
        query_precisions([np.zeros((3, 2)), bad], np.zeros(3, int), np.ones((1, 2)), "none")
    with pytest.raises(RetrievalInputError, match="query 1"):
        query_precisions([np.zeros((3, 2))], np.array([0, 2, 0]), np.ones((1, 1)), "none")
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
    curve = exact_two_retriever_search(pair[0], pair[1], target, method)
    assert (np.diff(curve.breakpoints) > 0).all()
    wide = np.diff(curve.breakpoints) > 1e-6  # in narrower ones rounding decides
    middle = ((curve.breakpoints[:-1] + curve.breakpoints[1:]) / 2)[wide]
    for w, found in zip(middle, curve.mean_values[wide], strict=True):
        expected = retrieval_values(fuse(pair, np.array([w, 1 - w]), method), target).corpus["map@10"]
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_no_grid_finds_more_than_the_exact_search(seed: int) -> None:
    pair, target = noisy(seed, decimals=9)
    curve = exact_two_retriever_search(pair[0], pair[1], target, "none")
    weights = np.random.default_rng(seed).random(400)
    grid = query_precisions(pair, target, np.stack([weights, 1 - weights], 1), "none").mean(1)
    np.testing.assert_allclose(grid, curve.mean_values[np.searchsorted(curve.breakpoints, weights) - 1])
    assert curve.best_value >= grid.max() - 1e-12


def test_reciprocal_ranks_are_of_the_highest_first() -> None:
    fused = fuse([np.array([[0.1, 0.9, 0.5]]), np.array([[3.0, 2.0, 2.0]])], np.array([1.0, 1.0]), "rrf", rrf_k=60)
    np.testing.assert_allclose(fused, [[1 / 63 + 1 / 61, 1 / 61 + 1 / 62.5, 1 / 62 + 1 / 62.5]])


def test_audio_to_text_by_hand() -> None:
    # captions 0, 1 and 3 are of item 0, caption 2 of item 1; ranks of item 0's own: 1, 3 (a tie loses), 4
    similarity = np.array([[0.9, 0.1], [0.5, 0.2], [0.5, 0.3], [0.1, 0.9]])
    target = np.array([0, 0, 1, 0])
    found = item_precisions([similarity], target, np.ones((1, 1)), "none")
    np.testing.assert_allclose(found, [[(1 + 2 / 3 + 3 / 4) / 3, 1 / 2]])


def test_means_over_clips_are_means_over_queries() -> None:
    pair, target = noisy(0, queries_each=1)
    pair, target = [one[:20] for one in pair], np.sort(target[:20] % 6)
    values = query_precisions(pair, target, simplex_grid(2, 3), "none")
    np.testing.assert_allclose(by_clip(values, target, 6).mean(1), values.mean(1))
