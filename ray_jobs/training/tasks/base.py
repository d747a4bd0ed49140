"""Define what the training loop asks of whatever it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn

from models.fingerprint import fingerprint
from ray_jobs.training.job import TrainingJob
from ray_jobs.training.optimizer import lr_lambda, parameter_groups


@dataclass(frozen=True)
class Validation:
    """The values of a model on the validation split, and what the user should know about them."""

    values: dict[str, float]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """The result of a finished training, to be published."""

    kept: Path  # directory of the kept epochs' models, each under its number
    epochs: list[int]  # their numbers, best first
    history: list[dict[str, float]]  # values of every epoch; of epoch 0 alone where nothing was trained
    parameters: int
    planned: int | None = None  # epochs, where a time limit cut them
    device: str | None = None  # name of that of the first worker

    @property
    def best(self) -> dict[str, float]:
        """Return the values of the best epoch."""
        return next(values for values in self.history if values["epoch"] == self.epochs[0])


class Task(ABC):
    """One kind of training: its model, batches, loss and validation, and what becomes of the result.

    `monitor` names the value of an epoch that chooses the best one; `sign` is +1 where more is better, else -1.
    """

    monitor: str
    sign: int
    job: TrainingJob

    def begin(self, rank: int, world: int, say: Callable[[str], None]) -> None:
        """Do one worker's share of what must be there before the model is made; by default nothing.

        It is done again by every worker of a training that was interrupted, and skips what is there.
        """
        return

    @abstractmethod
    def create(self) -> Any:
        """Return the model that training begins with. It is an `nn.Module` with a method `save(directory)`."""

    @abstractmethod
    def load(self, directory: Path) -> Any:
        """Return the model of this training that `save` wrote into a directory."""

    @abstractmethod
    def start_from(self, directory: Path) -> Any:
        """Return the model of another training, to be trained further under this one's settings."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of the model's parameters, with their peak learning rates."""
        return torch.optim.AdamW(parameter_groups(model, self.job.training))

    def lr_lambda(self) -> Callable[[int], float]:
        """Return the factor of the learning rate at each step, counted from 0 over all epochs."""
        return lr_lambda(self.job.training, self.steps_per_epoch())

    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Return the number of optimizer steps in an epoch."""

    def keep_monitor(self, values: dict[str, float]) -> None:
        """Go on choosing by what an interrupted training chose by, given an epoch's values; by default the same.

        A machine may have gained or lost what a monitored metric needs.
        """
        return

    def begin_epoch(self, model: nn.Module, epoch: int) -> None:
        """Prepare the model for an epoch, from 0 on, before its batches are drawn; by default nothing is done.

        An epoch that is resumed in its middle is not begun again.
        """
        return

    @abstractmethod
    def batches(self, epoch: int, rank: int, world: int) -> Iterator[Any]:
        """Yield one worker's share of every batch of an epoch: the same batches for the same seed and epoch.

        Yield what says which batch it is, if it takes long to read: a training that is resumed goes through the
        batches before its step.
        """

    def read(self, batch: Any) -> Any:
        """Return what `loss` takes, given what `batches` yielded: by default the same.

        This runs in several threads, for batches to come, and must depend on nothing but the batch.
        """
        return batch

    def tokens(self, batch: Any) -> int:
        """Return the number of tokens or frames of a read batch, for the training's speed; 0 where they say nothing."""
        return 0

    def seed_step(self, epoch: int, step: int, rank: int) -> None:
        """Seed torch for a step: by default from all that names it, so that a resumed training repeats its draws."""
        torch.manual_seed(int(fingerprint(self.job.seed, epoch, step, rank), 16) % 2**63)

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        """Return values to log, each a scalar; `loss` is the one that is minimised."""

    @abstractmethod
    def validate(self, model: Any) -> Validation:
        """Return the model's values on the validation split."""

    @abstractmethod
    def publish(self, trained: Trained, commit: str) -> None:
        """Write the result into the job's output directory."""

    def finish(self, rank: int, world: int, say: Callable[[str], None]) -> None:
        """Do one worker's share of what is left when the result is published; by default nothing.

        It is done again by every worker of a training that was interrupted in it, and skips what is there.
        """
        return

    @property
    @abstractmethod
    def memory_remedy(self) -> str:
        """Return which settings to change when memory is exhausted, as an advice to the user."""


def make_task(job: TrainingJob) -> Task:
    """Return the task of a training."""
    task: Task = resolve_name(job.task)(job)
    return task
