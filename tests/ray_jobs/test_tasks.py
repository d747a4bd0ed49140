"""Batches of training."""

import numpy as np

from ray_jobs.tasks import bucketed_batches


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
