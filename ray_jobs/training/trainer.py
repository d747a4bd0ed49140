"""Run trainings as Ray Train trainers, and follow their progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import ray
import ray.train
from ray.train.torch import TorchTrainer

from models.console import say
from ray_jobs.run import storage
from ray_jobs.run.directory import is_done
from ray_jobs.training.checkpoints import find_unrecorded
from ray_jobs.training.faults import EndAtOnce, actionable_errors
from ray_jobs.training.job import TrainingRequest

POLL_S = 2.0


@ray.remote(num_cpus=0)
class Progress:
    """Collects lines from the workers for the driver to print."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque()

    def push(self, line: str) -> None:
        self.lines.append(line)

    def drain(self) -> list[str]:
        lines = list(self.lines)
        self.lines.clear()
        return lines


def collect_progress() -> ray.actor.ActorHandle:
    """Start a `Progress` on this node."""
    return Progress.options(label_selector=this_node()).remote()  # type: ignore[attr-defined]


def this_node() -> dict[str, str]:
    """Return the label of this node, for what trainers cannot do without: a worker's node may go away at any time."""
    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def start_training(request: TrainingRequest, checkpoints: Path) -> ray.ObjectRef:
    """Start a training on this node; its checkpoints are removed when it is published, unless a time limit cut it."""
    return _fit.options(label_selector=this_node()).remote(request, checkpoints)


@ray.remote(num_cpus=0, max_retries=0)
def _fit(request: TrainingRequest, checkpoints: Path) -> None:
    """Run one trainer to its end."""
    trainer = make_trainer(request, checkpoints)
    try:
        trainer.fit()
    except ray.train.ControllerError as error:
        # the controller writes where workers do, and may be the first to meet a full disk
        with actionable_errors(request.job, "", checkpoints):
            raise error.controller_failure from error
    if is_done(request.job.output, request.job.inputs):
        storage.remove(checkpoints / str(trainer.run_config.name))  # the output directory has the result


def wait_and_say(running: list[ray.ObjectRef], progress: ray.actor.ActorHandle) -> list[ray.ObjectRef]:
    """Wait until a training ends, 2 s at most, print all new lines of progress, and return the trainings that ended."""
    ended, _ = ray.wait(running, timeout=POLL_S) if running else ([], [])
    for line in ray.get(progress.drain.remote()):
        say(line)
    return ended


def make_trainer(
    request: TrainingRequest,
    checkpoints: Path,
    callbacks: Sequence[ray.train.UserCallback] = (),
    keep: int = 1,
    worker: Callable[[TrainingRequest], None] | None = None,
) -> TorchTrainer:
    """Return the trainer of a job. Its name holds the settings, so other settings never continue old weights.

    Args:
        checkpoints: directory of the checkpoints of all trainings.
        callbacks: beside the one that ends it at a lasting error.
        keep: number of checkpoints kept.
        worker: the function of every worker, which calls `work`; `work` itself when left out.
    """
    job = request.job
    name = f"{job.name}-{job.inputs}"
    request = replace(request, unrecorded=find_unrecorded(checkpoints / name))
    return TorchTrainer(
        partial(worker or work, request),
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.resources.workers,
            use_gpu=job.resources.gpus_per_worker > 0,
            resources_per_worker=job.resources.per_worker(),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            **storage.for_ray(checkpoints),
            callbacks=[EndAtOnce(), *callbacks],
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=keep),
            failure_config=ray.train.FailureConfig(max_failures=job.resources.retries),
        ),
    )


def work(request: TrainingRequest) -> None:
    """Train in a Ray Train worker, the only process that loads the models."""
    from ray_jobs.training.loop import train_worker

    train_worker(request)
