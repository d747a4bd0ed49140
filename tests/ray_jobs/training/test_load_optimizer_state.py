"""A training that goes on with another one's weights under its own settings; without Ray."""

from pathlib import Path

import numpy as np
import pytest
import ray.train
import ray.train.torch
import torch

from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features.files import write_shard
from ray_jobs.results.member import MemberProgress
from ray_jobs.run.directory import RunDirectory
from ray_jobs.training import step_meter
from ray_jobs.training.job import TrainingRequest
from ray_jobs.training.loop import TrainingState
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.optimizer import lr_lambda
from ray_jobs.training.tasks.base import make_task
from ray_jobs.tuning.sweep_space import with_settings

from ..conftest import ROOT

SMOKE = ROOT / "experiments" / "smoke.yaml"
MEMBER = "retriever-bge"


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """With features of a few clips, where Ray Train's functions do nothing."""
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(ray.train, "report", lambda *_, **__: None)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    short = [f"members.{MEMBER}.training.{key}" for key in ("epochs=3", "batch_size=8", "warmup_steps=0")]
    experiment = load_experiment(SMOKE, [f"storage_path={tmp_path}", *short])
    rng, mels = np.random.default_rng(0), experiment.features.log_mel.n_mels
    rows = [
        {
            "clip_id": f"c{n}",
            "path": f"c{n}.wav",
            "freesound_id": "",
            "youtube_id": "",
            "audio_sha256": "",
            "duration_s": 1.0,
            "captions": [f"sound number {n} is heard", f"a sound {n}"],
            "codes": np.zeros((5, 2), np.int16),
            "log_mel": rng.normal(-40, 20, (40, mels)).astype(np.float16),
        }
        for n in range(16)
    ]
    for split in ("train", "validation"):
        shard = RunDirectory(experiment).features("soundscapes", split) / "00000.arrow"
        write_shard(shard, rows, {"codec": {"codebook_size": 4}, "quarantine": []}, 2, mels)
    return experiment


def state(experiment: Experiment, scratch: Path, start: Path | None = None, member: str = MEMBER) -> TrainingState:
    scratch.mkdir()
    task = make_task(MemberJob.of(experiment, RunDirectory(experiment), member))
    request = TrainingRequest(task.job, "", None, ray.train.Checkpoint(str(start)) if start else None)
    return TrainingState(task, scratch, rank=0, world=1, request=request)


def test_weights_and_moments_are_the_others_settings_are_the_own(experiment: Experiment, tmp_path: Path) -> None:
    donor = state(experiment, tmp_path / "donor")
    donor.run_epoch()
    settings = {"training.learning_rate": 3e-3, "training.weight_decay": 0.05, "dropout": 0.35, "epsilon": 0.2}
    other = with_settings(experiment, MEMBER, settings)
    heir = state(other, tmp_path / "heir", tmp_path / "donor")
    assert (heir.epoch, heir.step, heir.history) == (1, 0, donor.history)
    for name, value in donor.model.state_dict().items():
        assert torch.equal(heir.model.state_dict()[name], value), name
    assert (heir.model.config.dropout, heir.model.config.epsilon) == (0.35, 0.2)
    assert donor.average
    assert heir.average
    averages = [next(average.module.parameters()) for average in (donor.average, heir.average)]
    assert torch.equal(*averages)
    mine, theirs = heir.optimizer.state_dict(), donor.optimizer.state_dict()
    assert torch.equal(mine["state"][0]["exp_avg"], theirs["state"][0]["exp_avg"])
    assert [group["weight_decay"] for group in mine["param_groups"]] == [0.05, 0.0]
    # two steps an epoch, and a cosine over three epochs
    training = other.members[MEMBER].training
    assert training
    at = lr_lambda(training, 2)
    assert mine["param_groups"][0]["lr"] == pytest.approx(3e-3 * at(2))
    heir.run_epoch()
    assert [values["epoch"] for values in heir.history] == [1, 2]
    assert heir.history[1]["learning_rate"] == pytest.approx(3e-3 * at(4))


def test_an_epoch_tells_how_fast_it_goes(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_meter, "EVERY_S", 0.0)
    said: list[str] = []
    training = state(experiment, tmp_path / "own")
    training.run_epoch(said.append)
    assert [line.split("  loss")[0] for line in said] == [f"{MEMBER}  epoch 1/3  step {step}/2" for step in (1, 2)]
    assert all(" clips/s  " in line and "waiting for data" in line and line.endswith(" left") for line in said)
    second = training.task.job.output
    training.steps = 3  # an epoch that ends before the last step is told of: progress.json is as the last line wrote it
    monkeypatch.setattr(training, "_report", lambda values: None)
    training.run_epoch(said.append)
    progress = MemberProgress.read(second)
    assert (progress.epoch, progress.step) == (1, 2)
    assert progress.speed
    assert progress.speed.tokens_per_s
    assert 0 <= progress.speed.waiting <= 1


def test_a_batch_in_parts_makes_the_step_of_the_whole(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of parts are summed to the mean of the whole: for a loss that is a mean over texts, exactly that."""
    moved = []
    for parts in (1, 4):
        training = state(experiment, tmp_path / f"in-{parts}", member="fluency")
        training.meter = step_meter.StepMeter(range(2), clips=16)
        monkeypatch.setattr(training, "optimizer", torch.optim.SGD(training.model.parameters(), 1.0))
        training.parallel.eval()  # without dropout
        before = [parameter.detach().clone() for parameter in training.model.parameters()]
        batch = next(training.task.batches(0, 0, 1))[:16]
        training._step([batch[part::parts] for part in range(parts)])
        moved.append([new.detach() - old for new, old in zip(training.model.parameters(), before, strict=True)])
    assert any(float(one.abs().max()) > 1e-3 for one in moved[0])
    for whole, summed in zip(*moved, strict=True):
        torch.testing.assert_close(summed, whole, atol=1e-6, rtol=1e-4)


def test_a_step_waits_for_the_device_no_more_than_it_must(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each number read from a GPU waits for all that was asked of it; values are read at the end of the epoch."""
    training = state(experiment, tmp_path / "own", member="fluency")  # whose loss reads no numbers itself
    step, read, reads = training._step, torch.Tensor.__float__, list[torch.Tensor]()

    def counted(tensor: torch.Tensor) -> float:
        reads.append(tensor)
        return read(tensor)

    def watched(batches: list[object]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "__float__", counted)
            step(batches)

    monkeypatch.setattr(training, "_step", watched)
    values = training.run_epoch().values
    assert not reads
    assert isinstance(values["train_loss"], float)
    assert values["clips_per_s"] == pytest.approx(training.steps * training.training.batch_size / values["seconds"])
    assert 0 <= values["waiting"] <= 1
