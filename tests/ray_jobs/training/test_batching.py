"""Which clips make a batch."""

import numpy as np
import pytest
import torch

from ray_jobs.training.batching import bucketed_batches, draw_by_weight, padding_share


def test_batches_cover_a_split_once_and_hold_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(50, 400, 330).tolist()
    batches = list(bucketed_batches(lengths, 32, np.random.default_rng(1)))
    rows = np.concatenate(batches)
    assert len(rows) == len(set(rows.tolist())) == 320
    waste = sum(max(lengths[r] for r in batch) * len(batch) - sum(lengths[r] for r in batch) for batch in batches)
    assert waste / sum(lengths) < 0.15
    assert not np.array_equal(rows, np.concatenate(list(bucketed_batches(lengths, 32, np.random.default_rng(2)))))


def test_workers_share_each_global_batch() -> None:
    lengths = list(range(100, 170))
    alone = list(bucketed_batches(lengths, 16, np.random.default_rng(3)))
    shares = [list(bucketed_batches(lengths, 16, np.random.default_rng(3), rank, 2)) for rank in range(2)]
    for batch, first, second in zip(alone, *shares, strict=True):
        assert len(first) == len(second) == 8
        assert set(batch) == {*first, *second}


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    assert [len(batch) for batch in bucketed_batches([5, 3, 4], 16, np.random.default_rng(0))] == [3]


def test_weights_are_shares_of_an_epoch() -> None:
    origins = np.repeat([0, 1, 2], [900, 90, 10])
    drawn = draw_by_weight(origins, [1, 2, 1], np.random.default_rng(0))
    assert np.bincount(origins[drawn]).tolist() == [250, 500, 250]
    times = np.bincount(drawn, minlength=1000)
    assert times[:900].max() == 1, "no clip of a large corpus comes twice"
    assert set(times[900:990]) == {5, 6}, "all clips of a small one come equally often"
    assert set(times[990:]) == {25}
    again = draw_by_weight(origins, [1, 2, 1], np.random.default_rng(1))
    assert set(drawn[:250]) != set(again[:250])


def test_a_corpus_of_weight_zero_is_left_out() -> None:
    drawn = draw_by_weight(np.array([0, 0, 1]), [1, 0], np.random.default_rng(0))
    assert len(drawn) == 3
    assert set(drawn.tolist()) == {0, 1}


@pytest.mark.parametrize("batch_size", [16, 64])
def test_little_is_padding_with_lengths_like_clothos(batch_size: int) -> None:
    """15 to 30 s, evenly, at 75 frames a second."""
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.uniform(15, 30, 3839) * 75).long()
    seconds = (frames / 75).tolist()
    shares = [padding_share(frames[rows]) for rows in bucketed_batches(seconds, batch_size, rng)]
    assert 0.01 < np.mean(shares) < 0.1
    unsorted = [padding_share(frames[torch.from_numpy(rng.permutation(3839)[:batch_size])]) for _ in range(20)]
    assert np.mean(unsorted) > 0.2


def test_padding_share() -> None:
    assert padding_share(torch.tensor([3, 4, 1])).item() == pytest.approx(4 / 12)
    assert padding_share(torch.tensor([7, 7])).item() == 0
