"""Students on two workers, of which one is killed: they end with the weights of an undisturbed training."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import ray
import ray.train.torch
import torch

from ray_jobs.run.directory import RunDirectory
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.tasks.base import make_task

from .distilled import CLIPS, RETRIEVERS, captions, new_model, raw_experiment, save, save_teachers, write_run
from .killed_worker import RESOURCES, assert_trained_alike, train

STUDENTS = ("student-r", "student-c")


@pytest.fixture
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def student_job(folder: Path, name: str) -> MemberJob:
    """The training of a student whose teachers are trained, and what it reads, too."""
    folder.mkdir()
    members = raw_experiment(folder)["members"]
    members[name] |= {"resources": RESOURCES, "training": {**members[name]["training"], "batch_size": 2}}
    experiment = write_run(folder, members=members)
    save_teachers(experiment)
    if name == "student-c":
        words = [caption for clip in range(CLIPS) for caption in captions(clip)]
        save(experiment, "student-r", new_model(experiment.members["student-r"], experiment, words))
    for retriever in (*RETRIEVERS, *(["student-r"] if name == "student-c" else [])):
        make_task(MemberJob.of(experiment, RunDirectory(experiment), retriever)).finish(0, 1, print)
    return MemberJob.of(experiment, RunDirectory(experiment), name)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_that_lost_a_worker_ends_with_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))  # teachers' embeddings: made here
    calm, wild = (student_job(tmp_path / folder, name) for folder in ("calm", "wild"))
    train(calm, tmp_path / "calm" / "checkpoints", kill=False)
    train(wild, tmp_path / "wild" / "checkpoints", kill=True)
    assert "train_distillation_loss" in pd.read_parquet(calm.output / "history.parquet")
    assert_trained_alike(calm, wild)
