"""Train a fluency-error detector to tell damaged captions from intact ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.fluency.damage import build_examples
from models.fluency.detector import FluencyDetector
from models.settings import FluencyDetectorConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import FluencyDetectorMember, Member
from ray_jobs.training.batching import bucketed_batches
from ray_jobs.training.tasks.base import Validation
from ray_jobs.training.tasks.member import LONGEST_CAPTION, MemberTask


class FluencyTask(MemberTask):
    """Reads captions and damaged captions, which are damaged anew in each epoch."""

    monitor, sign = "f1", 1
    saves_memory = ("training.accumulate",)

    @property
    def _settings(self) -> FluencyDetectorConfig:
        assert isinstance(self.job.member, FluencyDetectorMember)
        return self.job.member.convert(FluencyDetectorConfig)

    def new_model(self) -> FluencyDetector:
        return FluencyDetector.create(self._settings, self.all_captions)

    @classmethod
    def layout(cls, experiment: Experiment, member: Member) -> FluencyDetector:
        return FluencyDetector.layout(member.convert(FluencyDetectorConfig))

    @classmethod
    def example_step(cls, model: Any, experiment: Experiment, member: Any) -> Tensor:
        texts = cls.clips_at_once(member)
        loss: Tensor = model([LONGEST_CAPTION] * texts, torch.zeros(texts))
        return loss

    def load(self, directory: Path) -> FluencyDetector:
        return FluencyDetector.load(directory)

    def start_from(self, directory: Path) -> FluencyDetector:
        return FluencyDetector.load(directory, self._settings)

    def examples(self) -> int:
        return len(build_examples(self.all_captions, self.rng(0)))

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[list[tuple[str, int]]]:
        rng = self.rng(epoch)
        examples = build_examples(self.all_captions, rng)
        order = rng.permutation(len(examples))
        lengths = [len(examples[row][0]) for row in order]
        for rows in bucketed_batches(lengths, self.batch_size, rng, rank, world):
            yield [examples[row] for row in order[rows]]

    def loss(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        damaged = torch.tensor([float(label) for _, label in batch], device=device)
        return {"loss": model([text for text, _ in batch], damaged)}

    def validate(self, model: FluencyDetector) -> Validation:
        """Compute precision, recall and F1 of finding damaged validation captions, at probability 0.5."""
        captions = [caption for clip in self.validation.captions for caption in clip]
        examples = build_examples(captions, np.random.default_rng(self.job.seed))
        damaged = np.array([label for _, label in examples], bool)
        found = model.fluency_error([text for text, _ in examples]) > 0.5
        precision = (damaged & found).sum() / max(1, found.sum())
        recall = (damaged & found).sum() / max(1, damaged.sum())
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        return Validation({"precision": float(precision), "recall": float(recall), "f1": float(f1)})
