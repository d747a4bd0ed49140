"""Two workers of Ray Train, of which one is killed: training must end as if it had not been."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from ray_jobs.results.member import SPEED
from ray_jobs.training.job import TrainingJob, TrainingRequest
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.trainer import make_trainer, work

RESOURCES = {"workers": 2, "retries": 1, "checkpoint_steps": 2, "hang_timeout_s": 300}


def train_until_killed(request: TrainingRequest) -> None:
    """Train in a worker, of which the second is killed once: a step after a checkpoint within the second epoch."""
    from ray_jobs.training.loop import TrainingState

    step, killed = TrainingState._step, _killed(request.job)

    def deadly(self: TrainingState, batches: list[Any]) -> None:
        assert self.world == 2
        assert bool(self.shards) == (self.training.parallel == "fsdp")
        step(self, batches)
        if (self.rank, self.epoch, self.step) == (1, 1, 2) and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    TrainingState._step = deadly  # type: ignore[method-assign]
    work(request)


def train(job: MemberJob, checkpoints: Path, kill: bool) -> None:
    """Train a member, and kill a worker of its training if so asked."""
    request = TrainingRequest(job, commit="", progress=None)
    make_trainer(request, checkpoints, worker=train_until_killed if kill else work).fit()
    assert _killed(job).exists() == kill


def assert_trained_alike(one: MemberJob, other: MemberJob) -> None:
    """Compare weights and histories, which must be equal to the last bit."""
    history, history_again = (
        pd.read_parquet(job.output / "history.parquet").drop(columns=list(SPEED)) for job in (one, other)
    )
    pd.testing.assert_frame_equal(history, history_again, check_exact=True)
    weights, weights_again = (load_file(job.output / "model.safetensors") for job in (one, other))
    assert weights.keys() == weights_again.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(weights_again[name], value, err_msg=name)


def _killed(job: TrainingJob) -> Path:
    return job.output.parent / f"{job.name}-killed"
