"""Matched against mismatched pairs: AUC, moments, hubs and histograms against brute force, in any blocks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models.retriever.pair_statistics import PairStatistics

CLIPS, EACH = 30, 4


def drawn(seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Similarities [texts, clips], below 0, and the clip of each text."""
    rng = np.random.default_rng(seed)
    target = rng.permutation(np.repeat(np.arange(CLIPS), EACH))
    similarity = rng.normal(-5, 1, (len(target), CLIPS)) + rng.normal(0, 0.5, (len(target), 1))
    similarity[np.arange(len(target)), target] += 1
    return (np.round(similarity) if ties else similarity).astype(np.float32), target


def found(similarity: np.ndarray, target: np.ndarray, rows: int = 1000, lowest: float = -12.0) -> PairStatistics:
    statistics = PairStatistics(similarity[np.arange(len(target)), target], target, similarity.shape[1], lowest)
    for start in range(0, len(target), rows):
        statistics.add(start, similarity[start : start + rows])
    return statistics


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_that_of_sklearn(ties: bool) -> None:
    similarity, target = drawn(ties=ties)
    right = np.zeros(similarity.shape, bool)
    right[np.arange(len(target)), target] = True
    statistics = found(similarity, target, rows=7)
    assert statistics.auc == pytest.approx(roc_auc_score(right.ravel(), similarity.ravel()))
    single = [roc_auc_score(right[row], similarity[row]) for row in range(len(target))]
    assert statistics.auc_of_query == pytest.approx(np.mean(single))
    if not ties:
        assert statistics.auc_of_query > statistics.auc, "texts differ in how similar they are to all clips"


def test_moments_and_histograms_are_those_of_all_pairs() -> None:
    similarity, target = drawn()
    statistics = found(similarity, target, rows=11)
    right = np.zeros(similarity.shape, bool)
    right[np.arange(len(target)), target] = True
    others = similarity[~right].astype(float)
    assert statistics.mismatched_mean == pytest.approx(others.mean())
    assert statistics.mismatched_deviation == pytest.approx(others.std())
    edges, matched, mismatched = statistics.histograms()
    np.testing.assert_allclose(np.diff(edges)[:-1], edges[1] - edges[0])
    np.testing.assert_array_equal(matched, np.histogram(similarity[right], edges)[0])
    np.testing.assert_array_equal(mismatched, np.histogram(others, edges)[0])
    assert (matched.sum(), mismatched.sum()) == (CLIPS * EACH, CLIPS * EACH * (CLIPS - 1))
    assert 32 < len(matched) <= 64
    # what is beyond the bounds counts at them
    narrow = found(similarity, target, lowest=-5.0).histograms()
    assert (narrow[1].sum(), narrow[2].sum()) == (CLIPS * EACH, CLIPS * EACH * (CLIPS - 1))


def test_hubs_are_counted_as_by_sorting() -> None:
    similarity, target = drawn()
    similarity[:, 3] += 4  # near to everything
    similarity[:, [5, 8]] -= 9
    statistics = found(similarity, target, rows=13)
    nearest = np.argsort(-similarity, axis=1)[:, :10]
    counts = np.array([(nearest == clip).sum() for clip in range(CLIPS)])
    np.testing.assert_array_equal(statistics.occurrences, counts)
    assert statistics.occurrences.argmax() == 3
    assert statistics.anti_hubs == pytest.approx(2 / CLIPS)
    deviations = counts - counts.mean()
    assert statistics.hub_skewness == pytest.approx((deviations**3).mean() / (deviations**2).mean() ** 1.5)
    plain = found(*drawn())
    assert statistics.hub_skewness > plain.hub_skewness


def test_few_clips() -> None:
    statistics = found(np.array([[-1.0, -2.0], [-1.0, -3.0]], np.float32), np.array([0, 1]))
    assert statistics.nearest == 1
    assert statistics.occurrences.tolist() == [2, 0]
    assert (statistics.auc, statistics.auc_of_query) == (0.375, 0.5)


def test_blocks_do_not_show() -> None:
    similarity, target = drawn()
    whole, pieces = found(similarity, target), found(similarity, target, rows=1)
    assert pieces.auc == pytest.approx(whole.auc)
    assert pieces.auc_of_query == pytest.approx(whole.auc_of_query)
    assert pieces.mismatched_deviation == pytest.approx(whole.mismatched_deviation)
    np.testing.assert_array_equal(pieces.occurrences, whole.occurrences)
    np.testing.assert_array_equal(pieces.histograms()[2], whole.histograms()[2])
