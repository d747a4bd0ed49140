"""Make the Ray Train trainer of a member, and what it needs: the job, the worker function, the progress lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchTrainer

from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.fingerprint import fingerprint
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory
from ray_jobs.training.member_job import MemberJob


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


def this_node() -> dict[str, str]:
    """The label of the node this runs on, for what trainers cannot do without: a worker's node may go away any time."""
    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def member_job(experiment: Experiment, directory: RunDirectory, name: str) -> MemberJob:
    """What a worker needs to train a member."""
    member = experiment.members[name]
    corpora = [c for c in experiment.training_corpora(name) if "train" in experiment.corpora[c].splits]
    return MemberJob(
        name=name,
        member=member,
        # Members that shared their draws would share their errors, and an ensemble lives from differing.
        seed=int(fingerprint(experiment.seed, name), 16) % 2**31,
        inputs=directory.member_inputs(name),
        train=[directory.features(corpus, "train") for corpus in corpora],
        train_weights=[member.corpora[corpus] for corpus in corpora] if isinstance(member.corpora, dict) else None,
        validation=[directory.features(experiment.target_corpus, "validation")],
        log_mel=experiment.features.log_mel,
        output=directory.member(name),
        edges={edge: directory.member(edge) for edge in member.edges()},
        experiment=experiment.name,
        tracking=tuple(experiment.tracking),
    )


def make_trainer(
    job: MemberJob, checkpoints: Path, commit_: str, progress: ray.actor.ActorHandle,
    callbacks: list[ray.train.UserCallback] | None = None, keep: int = 1, start: ray.train.Checkpoint | None = None,
    worker: Callable[[Any], None] | None = None,
) -> TorchTrainer:  # fmt: skip
    """The trainer of a member. Its name holds the settings, so other settings never continue old weights.

    Args:
        keep: checkpoints.
        start: another training's checkpoint, whose weights this one goes on with under its own settings.
        worker: the function of every worker; it calls `work`, which is it when left out.
    """
    resources = job.member.resources
    return TorchTrainer(
        worker or work,
        train_loop_config={"job": job, "commit": commit_, "progress": progress, "start": start},
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=resources.per_worker(),
        ),
        run_config=ray.train.RunConfig(
            name=f"{job.name}-{job.inputs}",
            **storage.for_ray(checkpoints),
            callbacks=callbacks,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=keep),
            failure_config=ray.train.FailureConfig(max_failures=resources.retries),
        ),
    )


def work(config: dict[str, Any]) -> None:
    """The function of every Ray Train worker."""
    from ray_jobs.training.loop import train_worker

    train_worker(config)
