"""Batches of training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.settings import LogMelConfig
from ray_jobs.config import RetrieverMember
from ray_jobs.features import Features
from ray_jobs.member_job import MemberJob
from ray_jobs.tasks import RetrieverTask


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
