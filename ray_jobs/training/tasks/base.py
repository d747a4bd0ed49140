"""Define what training means for a kind of member: its data, its batches, its loss and its validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ray_jobs.features.files import Features, read_features
from ray_jobs.training.batching import draw_by_weight
from ray_jobs.training.member_job import MemberJob


class Task(ABC):
    """One kind of training.

    `monitor` names the validation value that chooses the epoch, `sign` +1: more is better. `warning` is what the last
    validation found worth a line to the user.
    """

    monitor: str
    sign: int
    warning: str | None = None

    def __init__(self, job: MemberJob) -> None:
        self.job = job

    @cached_property
    def train(self) -> Features:
        return read_features(self.job.train)

    @cached_property
    def validation(self) -> Features:
        return read_features(self.job.validation)

    @property
    def all_captions(self) -> list[str]:
        """Of the training split: what tokenizers are trained on."""
        return [caption for clip in self.train.captions for caption in clip]

    @abstractmethod
    def create(self) -> Any:
        """A new model."""

    @abstractmethod
    def load(self, directory: Path) -> Any:
        """A saved model of this kind."""

    @abstractmethod
    def start_from(self, directory: Path) -> Any:
        """The weights of another member's model, to be trained under this member's settings."""

    @abstractmethod
    def batches(self, epoch: int, rank: int, world: int) -> Iterator[Any]:
        """This worker's share of every global batch of an epoch, the same for the same seed and epoch."""

    def steps_per_epoch(self) -> int:
        """Steps of the optimizer in an epoch."""
        return max(1, self.examples() // self.job.member.training.batch_size)

    @property
    def batch_size(self) -> int:
        """Of what `batches` yields, over all workers: a step's batch, or a part of it."""
        return self.job.member.training.batch_size // self.job.member.training.accumulate

    def examples(self) -> int:
        """Items of an epoch: clips, unless a task says otherwise."""
        return len(self.train)

    def epoch_clips(self, rng: np.random.Generator) -> np.ndarray:
        """Rows of `train` that an epoch goes through, in no particular order."""
        if self.job.train_weights is None:
            return np.arange(len(self.train))
        return draw_by_weight(np.asarray(self.train.origins), self.job.train_weights, rng)

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        """Values to log; `loss` is the one to descend."""

    @abstractmethod
    def validate(self, model: Any) -> dict[str, float]:
        """Values on the validation split."""

    def rng(self, epoch: int) -> np.random.Generator:
        """Random numbers of one epoch: nothing of them needs to be kept for resuming."""
        return np.random.default_rng([self.job.seed, epoch])


def draw_captions(captions: list[str], number: int, rng: np.random.Generator) -> list[str]:
    """`number` of a clip's captions, each once as long as there are enough."""
    return [str(caption) for caption in rng.choice(captions, number, replace=len(captions) < number)]
