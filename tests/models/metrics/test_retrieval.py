"""Ranks and mAP@10, by hand, against chance and against plain code."""

import numpy as np
import pytest
import torch

from models.metrics.retrieval import (
    NONE,
    ApOver,
    NanSimilarityError,
    RetrievalInputError,
    chance_map10,
    relevant_of,
    retrieval_values,
    retrieval_values_in_blocks,
    transport_similarity,
)
from models.retriever.model import negative_distances
from models.retriever.optimal_transport import log_plan


def test_identity_is_perfect() -> None:
    corpus = retrieval_values(np.eye(20), np.arange(20)).corpus
    assert corpus == {"map@10": 1.0, "map@16": 1.0, "r@1": 1.0, "r@5": 1.0, "r@10": 1.0, "median_rank": 1.0}


def test_ranks_by_hand() -> None:
    similarity = np.tile(np.arange(12, 0, -1.0), (4, 1))
    scores = retrieval_values(similarity, np.array([0, 4, 9, 10]))
    assert scores.ranks.tolist() == [1, 5, 10, 11]
    np.testing.assert_allclose(scores.average_precision, [1, 0.2, 0.1, 0])
    recalls = {"r@1": 0.25, "r@5": 0.5, "r@10": 0.75, "median_rank": 7.5}
    assert scores.corpus == pytest.approx({"map@10": 0.325, "map@16": 0.325 + 1 / 11 / 4, **recalls})


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
    monkeypatch.setattr("models.metrics.retrieval.BLOCK_CELLS", 70)
    np.testing.assert_array_equal(retrieval_values(similarity, target).ranks, whole.ranks)


def test_chance() -> None:
    assert chance_map10(1045) == pytest.approx(0.0028, abs=5e-5)
    assert chance_map10(1) == 1
    rng = np.random.default_rng(0)
    found = retrieval_values(rng.random((20_000, 50)), rng.integers(50, size=20_000)).corpus["map@10"]
    assert found == pytest.approx(chance_map10(50), rel=0.05)


def plain_values(
    similarity: np.ndarray, relevant: list[list[int]], cutoff: int, over_all: bool
) -> tuple[list[int], list[float]]:
    """Rank of the best right item and AP at a cut-off, by sorting each row, the right items last among equals."""
    ranks, precisions = [], []
    for row, right in zip(similarity.tolist(), relevant, strict=True):
        order = sorted(range(len(row)), key=lambda item: (-row[item], item in right))
        positions = [place for place, item in enumerate(order, 1) if item in right]
        ranks.append(positions[0])
        hits = [number / place for number, place in enumerate(positions, 1) if place <= cutoff]
        precisions.append(sum(hits) / (len(right) if over_all else min(len(right), cutoff)))
    return ranks, precisions


@pytest.mark.parametrize("ap_over", ["cutoff", "all"])
@pytest.mark.parametrize("levels", [3, 1000])
def test_many_right_items_agree_with_sorting(levels: int, ap_over: ApOver) -> None:
    rng = np.random.default_rng(levels)
    similarity = rng.integers(levels, size=(60, 40)).astype(np.float32)
    relevant = [rng.choice(40, rng.integers(1, 20), replace=False).tolist() for _ in range(60)]
    padded = np.array([right + [NONE] * (19 - len(right)) for right in relevant])
    found = retrieval_values_in_blocks(lambda rows: similarity[rows], padded, 40, block_cells=300, ap_over=ap_over)
    ranks, precisions = plain_values(similarity, relevant, 10, ap_over == "all")
    assert found.ranks.tolist() == ranks
    np.testing.assert_allclose(found.average_precision, precisions)
    assert found.corpus["map@16"] == pytest.approx(np.mean(plain_values(similarity, relevant, 16, ap_over == "all")[1]))


def test_one_right_item_among_many_is_the_same_as_one() -> None:
    rng = np.random.default_rng(1)
    similarity, target = rng.normal(size=(30, 20)), rng.integers(20, size=30)
    padded = np.column_stack([np.full(30, NONE), target])
    many = retrieval_values_in_blocks(lambda rows: similarity[rows], padded, 20)
    assert many.corpus == retrieval_values(similarity, target).corpus


def test_audio_to_text_takes_all_captions_of_a_clip() -> None:
    target = np.array([1, 0, 1, 2, 0, 1])
    assert relevant_of(target, 3).tolist() == [[1, 4, NONE], [0, 2, 5], [3, NONE, NONE]]
    captions = np.array([[0.0, 9, 0, 0, 8, 0], [5.0, 9, 3, 4, 0, 1], [6.0, 5, 4, 3, 2, 1]])
    found = retrieval_values_in_blocks(lambda rows: captions[rows], relevant_of(target, 3), 6)
    assert found.ranks.tolist() == [1, 2, 4]
    np.testing.assert_allclose(found.average_precision, [1, (1 / 2 + 2 / 4 + 3 / 5) / 3, 1 / 4])


def test_bad_relevance_is_named() -> None:
    for relevant, message in (([[NONE]], "query 0 has no"), ([[2, 2]], "twice"), ([[3]], r"expected 0\.\.2")):
        with pytest.raises(RetrievalInputError, match=message):
            retrieval_values_in_blocks(lambda rows: np.zeros((1, 3)), np.array(relevant), 3)
    with pytest.raises(RetrievalInputError, match="block of shape"):
        retrieval_values_in_blocks(lambda rows: np.zeros((1, 4)), np.array([[0]]), 3)


def test_blocks_of_embeddings_are_bounded_and_change_nothing() -> None:
    rng = np.random.default_rng(2)
    text, audio = (rng.normal(size=(number, 8)).astype(np.float32) for number in (90, 25))
    target = rng.integers(25, size=90)
    sizes: list[int] = []

    def block(rows: slice) -> np.ndarray:
        similarity = negative_distances(text[rows], audio)
        sizes.append(similarity.size)
        return similarity

    found = retrieval_values_in_blocks(block, target[:, None], 25, block_cells=200)
    assert max(sizes) <= 200
    assert sum(sizes) == 90 * 25
    whole = -np.linalg.norm(text[:, None] - audio[None], axis=-1)
    assert found.ranks.tolist() == retrieval_values(whole, target).ranks.tolist()


def test_transport_ranks_as_the_plan_and_as_shifted_distances() -> None:
    rng = np.random.default_rng(3)
    distance = rng.uniform(0.5, 2, (40, 12))
    distance[:, 3] -= 0.4  # a hub: near every query
    found = transport_similarity(-distance, 0.05)
    plan = log_plan(torch.from_numpy(distance / distance.max()), 0.05).numpy()
    assert np.array_equal(np.argsort(-found, axis=1), np.argsort(-plan, axis=1))
    offset = found + distance  # + row constant + epsilon log v
    np.testing.assert_allclose(offset - offset[:, :1], np.tile((offset - offset[:, :1])[:1], (40, 1)), atol=1e-9)
    first = [np.bincount(one.argmax(axis=1), minlength=12)[3] for one in (-distance, found)]
    assert first[1] < first[0]
