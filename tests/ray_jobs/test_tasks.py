"""Batches of training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.settings import LogMelConfig
from ray_jobs.config import RetrieverMember
from ray_jobs.features import Features
from ray_jobs.member_job import MemberJob
from ray_jobs.tasks import RetrieverTask, bucketed_batches, draw_by_weight


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


def retriever_batches(epoch: int, **settings: Any) -> list[tuple[torch.Tensor, torch.Tensor, list[str], torch.Tensor]]:
    """One epoch of 16 clips, of which clip n is 40 + 10 n frames long, filled with n, and captioned by its number."""
    training = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}
    member = RetrieverMember.model_validate({"kind": "retriever", "training": training, **settings})
    job = MemberJob("retriever", member, 0, "", [], None, [], LogMelConfig(n_mels=3), Path(), {})
    task = RetrieverTask(job)
    clips = [np.full((40 + 10 * n, 3), n, np.float16) for n in range(16)]
    names = [str(n) for n in range(16)]
    task.train = Features(names, names, [[name] for name in names], [1.0] * 16, clips, clips, [0] * 16, {})
    return list(task.batches(epoch, 0, 1))


def test_a_retriever_reads_stretches_and_mixtures_in_training() -> None:
    for log_mel, lengths, captions, clips in retriever_batches(0, audio_encoder={"max_frames": 64}):
        assert captions == [str(clip) for clip in clips.tolist()]
        assert captions == [str(int(row[0, 0])) for row in log_mel]
        assert lengths.tolist() == [min(40 + 10 * int(caption), 64) for caption in captions]
        assert log_mel.shape[1] == lengths.max()
    plain, mixed = retriever_batches(0), retriever_batches(0, mixup_alpha=0.4)
    assert [len(captions) for _, _, captions, _ in plain] == [8, 8]
    assert all(" and " not in caption for _, _, captions, _ in plain for caption in captions)
    assert [sum(" and " in caption for caption in captions) for _, _, captions, _ in mixed] == [2, 2]
    again = retriever_batches(0, mixup_alpha=0.4)
    assert all(torch.equal(one, other) for (one, *_), (other, *_) in zip(mixed, again, strict=True))
