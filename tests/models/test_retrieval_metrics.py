"""Ranks and mAP@10, by hand and against chance."""

import numpy as np
import pytest

from models.retrieval_metrics import NanSimilarityError, RetrievalInputError, chance_map10, retrieval_values


def test_identity_is_perfect() -> None:
    corpus = retrieval_values(np.eye(20), np.arange(20)).corpus
    assert corpus == {"map@10": 1.0, "r@1": 1.0, "r@5": 1.0, "r@10": 1.0, "median_rank": 1.0}


def test_ranks_by_hand() -> None:
    similarity = np.tile(np.arange(12, 0, -1.0), (4, 1))
    scores = retrieval_values(similarity, np.array([0, 4, 9, 10]))
    assert scores.ranks.tolist() == [1, 5, 10, 11]
    np.testing.assert_allclose(scores.average_precision, [1, 0.2, 0.1, 0])
    assert scores.corpus == pytest.approx({"map@10": 0.325, "r@1": 0.25, "r@5": 0.5, "r@10": 0.75, "median_rank": 7.5})


def test_ties_count_against_the_system() -> None:
    assert retrieval_values(np.zeros((1, 7)), np.array([0])).ranks.tolist() == [7]
    assert retrieval_values(np.array([[2.0, 2.0, 1.0]]), np.array([1])).ranks.tolist() == [2]


def test_nan_and_bad_targets_are_named() -> None:
    similarity = np.zeros((5, 3), np.float32)
    similarity[3, 1] = np.nan
    with pytest.raises(NanSimilarityError, match="query 3 and item 1") as caught:
        retrieval_values(similarity, np.zeros(5, int))
    assert (caught.value.query, caught.value.item) == (3, 1)
    for target in (np.array([0, 3]), np.array([-1, 0]), np.zeros(3, int), np.zeros(2)):
        with pytest.raises(RetrievalInputError):
            retrieval_values(np.zeros((2, 3)), target)
    with pytest.raises(RetrievalInputError):
        retrieval_values(np.zeros((0, 3)), np.zeros(0, int))


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    similarity, target = rng.normal(size=(101, 30)), rng.integers(30, size=101)
    whole = retrieval_values(similarity, target)
    monkeypatch.setattr("models.retrieval_metrics.CHUNK_CELLS", 70)
    np.testing.assert_array_equal(retrieval_values(similarity, target).ranks, whole.ranks)


def test_chance() -> None:
    assert chance_map10(1045) == pytest.approx(0.0028, abs=5e-5)
    assert chance_map10(1) == 1
    rng = np.random.default_rng(0)
    found = retrieval_values(rng.random((20_000, 50)), rng.integers(50, size=20_000)).corpus["map@10"]
    assert found == pytest.approx(chance_map10(50), rel=0.05)
