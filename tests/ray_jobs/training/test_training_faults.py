"""Faults in a worker: what is refused, and what the message says to do."""

import faulthandler
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.exceptions import OutOfMemoryError
from ray.train import ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from safetensors import SafetensorError

from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features.shard_cache import StoreUnreachableError
from ray_jobs.run.directory import RunDirectory
from ray_jobs.training.faults import (
    LASTING,
    DiskFullError,
    EndAtOnce,
    MemberOutOfMemoryError,
    actionable_errors,
    hang_watchdog,
    reason,
)
from ray_jobs.training.job import TrainingRequest
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.tasks.base import make_task
from ray_jobs.training.trainer import work

from ..conftest import ROOT
from ..small_training import MEMBER, write_experiment


def small_job(folder: Path, **training: Any) -> MemberJob:
    path = write_experiment(folder, 2, {"hang_timeout_s": 900}, **training)
    experiment = load_experiment(path)
    return MemberJob.of(experiment, RunDirectory(experiment), MEMBER)


def smoke_job(member: str, output: Path) -> MemberJob:
    experiment = load_experiment(ROOT / "experiments" / "smoke.yaml")
    return replace(MemberJob.of(experiment, RunDirectory(experiment), member), output=output / "members" / member)


def test_a_step_that_diverges_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop itself, in this process; Ray Train's local mode has no workers to start."""
    watched: list[float] = []
    ended: list[bool] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda timeout, exit, file: watched.append(timeout))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: ended.append(True))
    job = small_job(tmp_path / "small", learning_rate=1e30, clip_norm=1e9)
    request = TrainingRequest(job, commit="", progress=None)
    trainer = TorchTrainer(partial(work, request), scaling_config=ScalingConfig(num_workers=0))
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(Exception) as failed:  # noqa: PT011 local mode passes the worker's error on, others wrap it
            trainer.fit()
    finally:
        ray.shutdown()
    assert not isinstance(failed.value, AssertionError)
    found = reason(failed.value)
    assert f"{MEMBER}: loss nan" in found
    assert "in epoch 1, step 2; lower members.fluency.training.learning_rate" in found
    assert watched == [900], "after the first step, which was made"
    assert ended
    assert not (job.output / "model.safetensors").exists()


@pytest.mark.parametrize("writer", ["python", "torch", "safetensors"])
def test_a_full_disk_is_named_with_what_is_left(writer: str, tmp_path: Path) -> None:
    """Opened, never replaced, /dev/full answers every write as a full disk does; safetensors would replace it."""

    def write() -> None:
        if writer == "safetensors":
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        with Path("/dev/full").open("r+b", buffering=0) as full:
            torch.save({"a": torch.zeros(1 << 10)}, full) if writer == "torch" else full.write(b"x")

    full_disk = pytest.raises(DiskFullError, match=rf"fluency: .*[0-9.]+ .?B free at {tmp_path}.*; make room")
    with full_disk, actionable_errors(smoke_job("fluency", tmp_path), "", tmp_path):
        write()


@pytest.mark.parametrize(
    ("member", "remedy"),
    [("retriever-bge", "members.retriever-bge.gradient_cache"), ("captioner-wide", "gradient_checkpointing: true")],
)
def test_exhausted_memory_is_reported_with_settings_that_need_less(member: str, remedy: str, tmp_path: Path) -> None:
    job = smoke_job(member, tmp_path)
    errors = actionable_errors(job, make_task(job).memory_remedy, tmp_path)
    with pytest.raises(MemberOutOfMemoryError, match=remedy), errors:
        torch.empty(1 << 50)


@pytest.mark.parametrize("error", [kind("why") for kind in LASTING], ids=lambda error: type(error).__name__)
def test_lasting_errors_end_a_training_at_once(error: Exception) -> None:
    """Ray Train does not restart where a callback raises."""
    with pytest.raises(RuntimeError) as ended:
        EndAtOnce().after_exception(None, {0: ConnectionError("peer closed"), 1: error})
    assert reason(ended.value) == f"{type(error).__name__}: why"


def test_what_may_pass_is_restarted() -> None:
    EndAtOnce().after_exception(None, {0: StoreUnreachableError("why"), 1: ConnectionError("peer closed")})


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyError), actionable_errors(smoke_job("fluency", tmp_path), "", tmp_path):
        raise KeyError("x")


def test_the_reason_is_the_line_that_says_most() -> None:
    text = (
        "Training failed due to worker errors:\n[Rank 0 Error Snippet]:\nTraceback ...\n"
        "ray_jobs.training.faults.LossIsNaNError: wide: loss nan\n[Rank 1 Error Snippet]:\nRuntimeError: peer closed"
    )
    assert reason(TrainingFailedError(text)) == "LossIsNaNError: wide: loss nan"
    assert reason(RuntimeError("one\ntwo")) == "two"
    assert reason(RuntimeError()) == "RuntimeError"
    killed = (
        "Task was killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: a6) was "
        "21.41GB used / 23.54GB limit (0.909469)\nOOM kill reason: ...\nRefer to the documentation"
    )
    assert reason(OutOfMemoryError(killed)).startswith(
        "killed, as its node ran out of memory (21.41GB used / 23.54GB limit); fewer members at once"
    )


def test_what_a_worker_has_named_is_not_named_again(tmp_path: Path) -> None:
    told = RuntimeError("MemberOutOfMemoryError: wide: can't allocate memory; set training.accumulate")
    job = smoke_job("captioner-wide", tmp_path)
    with pytest.raises(RuntimeError) as raised, actionable_errors(job, "", tmp_path):
        raise told
    assert raised.value is told


def test_a_hung_process_ends_and_says_where_it_hung() -> None:
    hangs = (
        "import time\nfrom ray_jobs.training.faults import hang_watchdog\n"
        "with hang_watchdog(0.5) as alive:\n    alive()\n    time.sleep(60)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", hangs], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 1
    assert 'File "<string>", line 5' in ended.stderr
    with hang_watchdog(0.01):
        pass  # and this process goes on
