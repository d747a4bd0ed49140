"""Which clips make a batch, and in what order an epoch goes through them."""

import numpy as np
import pytest
import torch

from ray_jobs.training.batching import (
    bucketed_batches,
    draw_by_weight,
    padding_share,
    shuffle_in_windows,
    times_before,
)


def test_an_epoch_is_a_permutation_that_goes_through_the_shards_window_by_window() -> None:
    shards, window = np.repeat(np.arange(100), 64), 1024
    order = shuffle_in_windows(shards, window, np.random.default_rng(0))
    assert sorted(order) == list(range(6400))
    windows = [set(shards[order[at : at + window]]) for at in range(0, 6400, window)]
    assert [len(one) for one in windows] == [16, 16, 16, 16, 16, 16, 4], "each shard belongs to one window"
    assert set.union(*windows) == set(range(100))
    assert max(windows[0]) - min(windows[0]) > 50, "a window's shards are from everywhere"
    assert len(set(shards[order[:64]])) > 10, "clips of a window's shards are mixed"
    assert not np.array_equal(order, shuffle_in_windows(shards, window, np.random.default_rng(1)))
    np.testing.assert_array_equal(order, shuffle_in_windows(shards, window, np.random.default_rng(0)))


def test_few_clips_are_shuffled_freely() -> None:
    firsts = [shuffle_in_windows(np.repeat([0, 1], 4), 100, np.random.default_rng(n))[0] for n in range(200)]
    assert set(firsts) == set(range(8))


def test_no_clips_have_an_order() -> None:
    assert len(shuffle_in_windows(np.zeros(0, int), 10, np.random.default_rng(0))) == 0


def test_times_before() -> None:
    assert times_before(np.array([3, 1, 3, 3, 0, 1])).tolist() == [0, 0, 1, 2, 0, 1]


def test_batches_cover_a_split_once_and_hold_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(50, 400, 330).tolist()
    batches = list(bucketed_batches(lengths, 32, np.random.default_rng(1)))
    rows = np.concatenate(batches)
    assert len(rows) == len(set(rows.tolist())) == 320
    waste = sum(max(lengths[r] for r in batch) * len(batch) - sum(lengths[r] for r in batch) for batch in batches)
    assert waste / sum(lengths) < 0.15
    assert not np.array_equal(rows, np.concatenate(list(bucketed_batches(lengths, 32, np.random.default_rng(2)))))


def test_batches_stay_near_where_their_clips_are() -> None:
    lengths = np.random.default_rng(0).uniform(5, 30, 6400)
    for number, rows in enumerate(bucketed_batches(lengths, 32, np.random.default_rng(1))):
        assert set(rows // 512) == {number // 16}


@pytest.mark.parametrize("world", [2, 4])
def test_workers_share_each_global_batch(world: int) -> None:
    lengths = list(range(100, 180))
    alone = list(bucketed_batches(lengths, 16, np.random.default_rng(3)))
    shares = [list(bucketed_batches(lengths, 16, np.random.default_rng(3), rank, world)) for rank in range(world)]
    for batch, *parts in zip(alone, *shares, strict=True):
        assert [len(part) for part in parts] == [16 // world] * world
        assert np.stack(parts, 1).ravel().tolist() == batch.tolist()


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    assert [len(batch) for batch in bucketed_batches([5, 3, 4], 16, np.random.default_rng(0))] == [3]
    assert [len(batch) for batch in bucketed_batches([5, 3, 4], 16, np.random.default_rng(0), 0, 2)] == [1]


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


@pytest.mark.parametrize("batch_size", [16, 64, 256])
@pytest.mark.parametrize("corpus", ["clotho", "mixed"])
def test_little_is_padding_with_realistic_lengths(batch_size: int, corpus: str) -> None:
    """Clotho: 15 to 30 s, evenly; mixed: log-normal, 5 to 30 s; at 75 frames a second."""
    rng, clips = np.random.default_rng(0), 6000
    seconds = rng.uniform(15, 30, clips) if corpus == "clotho" else rng.lognormal(np.log(11), 0.5, clips).clip(5, 30)
    frames = torch.from_numpy(seconds * 75).long()
    shares = [padding_share(frames[rows]) for rows in bucketed_batches(seconds, batch_size, rng)]
    assert 0.01 < np.mean(shares) <= 0.1
    unsorted = [padding_share(frames[torch.from_numpy(rng.permutation(clips)[:batch_size])]) for _ in range(20)]
    assert np.mean(unsorted) > 0.2


def test_padding_share() -> None:
    assert padding_share(torch.tensor([3, 4, 1])).item() == pytest.approx(4 / 12)
    assert padding_share(torch.tensor([7, 7])).item() == 0
