"""Describe one training as it is sent to its workers. Light to import: only the workers load the models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ray_jobs.experiment.training_config import Resources, Training
from ray_jobs.run import storage
from ray_jobs.training.deadline import Deadline

if TYPE_CHECKING:
    import ray.actor
    import ray.train


@dataclass(frozen=True, kw_only=True)
class TrainingJob(ABC):
    """A training as the loop needs to know it: that of a member of the ensemble, or of a codec."""

    name: str
    seed: int
    inputs: str  # fingerprint of all that the weights depend on
    output: Path  # the directory of the result
    experiment: str = ""
    tracking: tuple[str, ...] = ()  # besides TensorBoard

    @property
    @abstractmethod
    def kind(self) -> str:
        """Return the kind of what is trained, for the record."""

    @property
    @abstractmethod
    def task(self) -> str:
        """Return the module and class of the training's `Task`, for `resolve_name`: each brings its heavy imports."""

    @property
    def is_trained(self) -> bool:
        """Return whether there is anything to train; else what the task creates is published as it is."""
        return True

    @property
    def is_validated(self) -> bool:
        """Return whether a validation value chooses the epoch; else the last one is kept."""
        return True

    @property
    @abstractmethod
    def training(self) -> Training:
        """Return the settings of the loop."""

    @property
    @abstractmethod
    def resources(self) -> Resources:
        """Return what the workers take."""

    @property
    @abstractmethod
    def run(self) -> Path:
        """Return the run directory."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return everything that the user set, as JSON."""

    @abstractmethod
    def key(self, field: str) -> str:
        """Return the full key of a setting such as `training.learning_rate` in the user's file, for messages."""

    def on_this_node(self) -> Self:
        """Return the job with paths of this node's working copy."""
        return replace(self, output=storage.here(self.output))


@dataclass(frozen=True)
class TrainingRequest:
    """The input of every worker of a training."""

    job: TrainingJob
    commit: str  # of the code, for the record
    progress: ray.actor.ActorHandle | None  # a `trainer.Progress`, which takes a line after every epoch
    start: ray.train.Checkpoint | None = None  # of a training of the same member under other settings
    deadline: Deadline | None = None  # where the run has a time limit
    unrecorded: ray.train.Checkpoint | None = None  # of this training, which Ray Train does not know of any more

    @property
    def limit(self) -> timedelta | None:
        """Return the time limit of the run."""
        return timedelta(seconds=self.deadline.limit_s) if self.deadline else None
