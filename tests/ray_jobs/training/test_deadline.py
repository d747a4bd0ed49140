"""Trainings that a time limit ends: between epochs, within the first one, and going on when the limit is raised."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray

from ray_jobs import train
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.member import MemberMetrics, MemberProgress
from ray_jobs.results.time_limit import cut_lines
from ray_jobs.results.time_used import TimeUsed
from ray_jobs.run import storage
from ray_jobs.run.directory import MARKER, RunDirectory, marker
from ray_jobs.status import read_status
from ray_jobs.training.deadline import Deadline
from ray_jobs.training.job import TrainingRequest
from ray_jobs.training.trainer import start_training

from ..small_training import MEMBER, write_experiment
from .distilled import write_run

EPOCHS = 4


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@dataclass
class After(Deadline):
    """A deadline that comes when some epochs and steps are written in progress.json."""

    output: Path
    epochs: int
    steps: int = 0

    def left(self) -> float:
        if not storage.exists(self.output / MemberProgress.FILE):
            return 1e-9  # so that each step is followed by a look
        found = MemberProgress.read(self.output)
        if (found.epoch, found.step) >= (self.epochs, self.steps):
            return -1.0
        return 1e-9 if found.step else 1e9


def ended_after(epochs: int, steps: int = 0) -> Any:
    """Return a way to start trainings whose time is up after some epochs and steps."""

    def start(request: TrainingRequest, checkpoints: Path) -> ray.ObjectRef:
        assert request.deadline
        deadline = After(
            request.deadline.limit_s,
            request.deadline.share_s,
            request.deadline.latest,
            request.job.output,
            epochs,
            steps,
        )
        return start_training(replace(request, deadline=deadline), checkpoints)

    return start


def experiment_with(path: Path, limit: str) -> Experiment:
    return load_experiment(path, [f"time_limit={limit}"])


def trained(experiment: Experiment, start: Any = start_training) -> RunDirectory:
    """Train what is to be trained; None of it may fail."""
    directory = RunDirectory(experiment)
    directory.write_experiment()
    todo = {name for name in experiment.members if not train.is_trained(experiment, directory, name)}
    assert train.train_members(experiment, directory, todo, start) == {}
    return directory


def never(request: TrainingRequest, checkpoints: Path) -> ray.ObjectRef:
    raise AssertionError(f"{request.job.name} is not to be trained")


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_cut_member_is_its_best_epoch_and_goes_on_under_a_higher_limit(tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "small", EPOCHS, {"checkpoint_steps": 1})
    directory = trained(experiment_with(path, "1h"), ended_after(epochs=2))
    output = directory.member(MEMBER)
    cut, first = MemberMetrics.read(output), pd.read_parquet(output / "history.parquet")
    assert (cut.epochs, cut.planned_epochs, len(first)) == (2, EPOCHS, 2)
    assert (output / "model.safetensors").exists()
    assert cut_lines(directory.experiment) == [f"{MEMBER}: 2 of {EPOCHS} epochs"]
    status = read_status(directory.root).members[0]
    assert (status.state, status.epoch, status.epochs) == ("done", 2, EPOCHS)
    assert status.note.endswith("cut by the time limit")

    for limit in ("1h", "30m"):
        trained(experiment_with(path, limit), never)
    for overrides in (["time_limit=2h"], []):
        again = load_experiment(path, overrides)
        assert not RunDirectory(again).is_trained(MEMBER)
        assert RunDirectory(again).member_inputs(MEMBER) == directory.member_inputs(MEMBER)

    trained(load_experiment(path))
    whole, history = MemberMetrics.read(output), pd.read_parquet(output / "history.parquet")
    assert (whole.epochs, whole.planned_epochs) == (EPOCHS, None)
    pd.testing.assert_frame_equal(history[:2], first, check_exact=True)  # these are not trained again
    assert marker(output) == {"inputs": directory.member_inputs(MEMBER)}
    assert not list(directory.checkpoints.glob(f"{MEMBER}-*")), "as without a limit"


@pytest.mark.usefixtures("local_ray")
def test_without_a_whole_epoch_a_member_is_left_out_and_its_steps_are_kept(tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "small", 1, {"checkpoint_steps": 1})
    directory = trained(experiment_with(path, "1h"), ended_after(epochs=0, steps=2))
    assert not (directory.member(MEMBER) / MARKER).exists()
    assert "first epoch" in directory.left_out(MEMBER)
    assert read_status(directory.root).members[0].state == "left out"
    # In a checkpoint, which a higher limit goes on from: of the third step, or of the second where that took so
    # long that its speed was written.
    assert MemberProgress.read(directory.member(MEMBER)).step in (2, 3)
    higher = trained(experiment_with(path, "2h"))
    assert higher.is_trained(MEMBER)
    assert higher.left_out(MEMBER) == ""


def test_used_up_time_leaves_out_what_has_not_begun_and_what_waits_for_it(tmp_path: Path, local_ray: None) -> None:
    write_run(tmp_path)
    path = tmp_path / "small.yaml"
    experiment = experiment_with(path, "1h")
    TimeUsed(seconds=3600.0).write(RunDirectory(experiment).root)
    directory = trained(experiment, never)
    assert directory.left_out("retriever-a") == "the time was up before its first epoch"
    assert directory.left_out("captioner-a") == "waits for retriever-a, which is left out"
    assert directory.left_out("student-c") == "waits for student-r, which is left out"
    train.run(experiment)  # and so it stays, without an error
    for again in (load_experiment(path), experiment_with(path, "2h")):
        assert not any(RunDirectory(again).left_out(name) for name in again.members)
