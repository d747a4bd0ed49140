"""Define what the trainings of all members have in common: feature shards, epochs of clips, the member's directory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch import Tensor, nn

from models.files import copy_directory, sha256_of, write_frame
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import Member
from ray_jobs.features.dataset import Features, read_features
from ray_jobs.results.member import MemberMetrics
from ray_jobs.training.batching import draw_by_weight, shuffle_in_windows, times_before
from ray_jobs.training.kept_epochs import KEPT
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.tasks.base import Task, Trained

LONGEST_CAPTION = " ".join(["a"] * 30)  # for estimates: most captions of the published corpora have fewer words


@dataclass(frozen=True)
class PlannedBatch:
    """One worker's share of a batch, before it is read."""

    epoch: int
    rows: np.ndarray  # [B], places in the order of the epoch
    clips: np.ndarray  # [B], rows of `MemberTask.train`


class MemberTask(Task):
    """The training of one kind of member.

    `saves_memory` lists the kind's own settings that need less memory and leave the gradient as it is.
    """

    job: MemberJob
    saves_memory: ClassVar[tuple[str, ...]]

    def __init__(self, job: MemberJob) -> None:
        self.job = job

    @cached_property
    def train(self) -> Features:
        return read_features(self.job.train, self._cache_bytes)

    @property
    def _cache_bytes(self) -> int | None:
        gigabytes = self.job.resources.feature_cache_gb
        return None if gigabytes is None else int(gigabytes * 1e9)

    @cached_property
    def validation(self) -> Features:
        return read_features(self.job.validation)

    @property
    def all_captions(self) -> list[str]:
        """Return the captions of the training split, which tokenizers are trained on."""
        return [caption for clip in self.train.captions for caption in clip]

    def create(self) -> Any:
        """Return a new model, or the weights of the member named by `init_from`."""
        start = self.job.member.init_from
        return self.start_from(self.job.edges[start]) if start else self.new_model()

    @abstractmethod
    def new_model(self) -> Any:
        """Return a model that was not trained yet, but for published weights."""

    @classmethod
    @abstractmethod
    def layout(cls, experiment: Experiment, member: Member) -> nn.Module:
        """Lay out the model of a member on torch's meta device: shapes alone.

        Raises:
            InputError, OSError: if the sizes are those of a checkpoint or codec that is not on this disk.
        """

    @classmethod
    @abstractmethod
    def example_step(cls, model: Any, experiment: Experiment, member: Any) -> Tensor:
        """Run a forward pass of the largest batch, or part of one, that a worker computes at a time.

        Args:
            model: as `layout` returns it, perhaps of fake tensors: nothing may depend on numbers.
        """

    @classmethod
    def teacher_weights(cls, experiment: Experiment, member: Any) -> int:
        """Return the number of weights of teachers that each worker holds, to run them in every step; by default 0."""
        return 0

    @staticmethod
    def clips_at_once(member: Member) -> int:
        """Return the clips of a worker's batch, or of the part of it that is computed at a time."""
        assert member.training
        return member.training.batch_size // member.training.accumulate // member.resources.min_workers

    def steps_per_epoch(self) -> int:
        return max(1, self.examples() // self.job.training.batch_size)

    @property
    def batch_size(self) -> int:
        """Return the size of what `batches` yields, over all workers: a step's batch, or a part of it."""
        return self.job.training.batch_size // self.job.training.accumulate

    def examples(self) -> int:
        """Return the number of examples in an epoch: clips, unless a kind says otherwise."""
        return len(self.train)

    def epoch_clips(self, rng: np.random.Generator) -> np.ndarray:
        """Return the rows of `train` that an epoch goes through, in their order.

        A clip that is drawn several times comes once in each of as many orders of its shard.
        """
        shards, window = np.asarray(self.train.shards), self.job.training.shuffle_clips
        if self.job.train_weights is None:
            rows = np.arange(len(self.train))
        else:
            corpora = list(dict.fromkeys(split.parent for split in self.job.train))  # a refit has two splits of one
            of_split = np.array([corpora.index(split.parent) for split in self.job.train])
            rows = draw_by_weight(of_split[self.train.origins], self.job.train_weights, rng)
        rows = rows[shuffle_in_windows(shards[rows] + times_before(rows) * (1 + shards.max()), window, rng)]
        windows = [shards[rows[at : at + window]] for at in range(0, len(rows), window)]
        setting = self.job.key("resources.feature_cache_gb")
        self.train.check_cache(max(len(np.unique(one)) for one in windows), setting)
        self.train.expect(rows)
        return rows

    def rng(self, epoch: int, *what: int) -> np.random.Generator:
        """Return the random numbers of an epoch, or of something in it, such as one of its examples.

        They depend on seed and numbers alone, so resuming needs no state of them.
        """
        return np.random.default_rng([self.job.seed, epoch, *(1 + number for number in what)])

    def examples_of(self, batch: PlannedBatch) -> Iterator[tuple[int, np.random.Generator]]:
        """Yield each clip of a batch with random numbers of its own: the same on whatever worker it is."""
        for row, clip in zip(batch.rows.tolist(), batch.clips.tolist(), strict=True):
            yield clip, self.rng(batch.epoch, row)

    def publish(self, trained: Trained, commit: str) -> None:
        """Write the best epoch's model, the other kept epochs, history.parquet and metrics.json."""
        output, (best, *others) = self.job.output, trained.epochs
        copy_directory(trained.kept / str(best), output)
        for epoch in others:
            copy_directory(trained.kept / str(epoch), output / KEPT / str(epoch))
        history, inherited = pd.DataFrame(trained.history), self.job.inherited
        write_frame(output / "history.parquet", history)
        MemberMetrics(
            member=self.job.name,
            kind=self.job.kind,
            split="validation",
            chosen_by=inherited.chosen_by if inherited else self.monitor,
            epochs=int(trained.history[-1]["epoch"]),
            planned_epochs=trained.planned,
            best={**(inherited.best if inherited else {}), **trained.best},
            kept_epochs=trained.epochs,
            parameters=trained.parameters,
            weights=sha256_of(output / "model.safetensors"),
            seconds=float(history["seconds"].sum()),
            device=trained.device,
            seed=self.job.seed,
            commit=commit,
            inherited_from=inherited.member if inherited else None,
        ).write(output)

    @property
    def memory_remedy(self) -> str:
        return self.memory_advice(self.job.name)

    @classmethod
    def memory_advice(cls, name: str) -> str:
        """Return which settings of a member of this name take less memory."""
        others = [*cls.saves_memory[1:], "training.precision: bfloat16", "more resources.workers"]
        return f"set members.{name}.{cls.saves_memory[0]}, or {', '.join(others)}"


def draw_captions(captions: list[str], number: int, rng: np.random.Generator) -> list[str]:
    """Draw `number` of a clip's captions, none of them twice as long as there are enough."""
    return [captions[row] for row in draw_rows(captions, number, rng)]


def draw_rows(captions: list[str], number: int, rng: np.random.Generator) -> list[int]:
    """Draw the places of `number` of a clip's captions as `draw_captions` does."""
    rows: list[int] = rng.choice(len(captions), number, replace=len(captions) < number).tolist()
    return rows
