"""A captioner that reads codes alone, without any retriever's embedding."""

from pathlib import Path

import torch

from models.captioner.model import Captioner
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.tasks.captioner import CaptionerTask

from .distilled import CAPTIONERS, raw_experiment, write_run


def test_it_trains_on_codes_alone(tmp_path: Path) -> None:
    members = raw_experiment(tmp_path)["members"]
    alone = {CAPTIONERS[0]: members[CAPTIONERS[0]] | {"audio_embedding": []}}
    experiment = write_run(tmp_path, members=alone)
    assert experiment.members[CAPTIONERS[0]].edges() == []
    from ray_jobs.run.directory import RunDirectory

    task = CaptionerTask(MemberJob.of(experiment, RunDirectory(experiment), CAPTIONERS[0]))
    model = task.new_model()
    batch = task.read(next(task.batches(0, 0, 1)))
    assert batch.embeddings.shape == (len(batch.codes), 1)
    assert not batch.embeddings.any()
    losses = task.loss(model, batch, torch.device("cpu"))
    losses["loss"].backward()
    assert model.audio_projection.bias.grad is not None
    assert model.audio_projection.bias.grad.any(), "a learned vector stands where the embedding would"
    assert model.audio_projection.weight.grad is not None
    assert not model.audio_projection.weight.grad.any()
    assert task.validation_embeddings.shape == (len(task.validation.clip_ids), 1)
    layout = CaptionerTask.layout(experiment, experiment.members[CAPTIONERS[0]])
    assert isinstance(layout, Captioner)
    assert layout.audio_projection.weight.shape == model.audio_projection.weight.shape
