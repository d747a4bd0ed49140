"""Model and training of a kind of member that the project does not have; its settings are in `test_contributing`.

It predicts the number of words in a clip's captions from its log-mel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from models.checkpoint import load_weights, read_config, save_member
from models.settings import Settings
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import Member
from ray_jobs.training.tasks.base import Validation
from ray_jobs.training.tasks.member import MemberTask

KIND = "clip-length"


class ClipLengthConfig(Settings):
    """The sizes of the model."""

    hidden: int = Field(gt=0)
    mels: int = Field(gt=0)


class ClipLength(nn.Module):
    """Two layers over the mean of the frames."""

    def __init__(self, config: ClipLengthConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Linear(config.mels, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 1))

    @classmethod
    def load(cls, directory: Path) -> ClipLength:
        model = cls(read_config(ClipLengthConfig, directory, KIND))
        load_weights(model, directory)
        return model.eval()

    def save(self, directory: Path) -> None:
        save_member(self, directory, KIND, self.config)

    def forward(self, means: Tensor) -> Tensor:
        """Return the lengths [B] of clips whose mean frames are means [B, mels]."""
        found: Tensor = self.layers(means / 50)
        return found[:, 0]


class ClipLengthTask(MemberTask):
    """Learns the mean number of words in a clip's captions by its squared error."""

    monitor, sign = "squared_error", -1
    saves_memory = ("training.accumulate",)

    @classmethod
    def layout(cls, experiment: Experiment, member: Member) -> ClipLength:
        with torch.device("meta"):
            return ClipLength(member.convert(ClipLengthConfig, mels=experiment.features.log_mel.n_mels))

    def new_model(self) -> ClipLength:
        return ClipLength(self.job.member.convert(ClipLengthConfig, mels=self.job.log_mel.n_mels))

    @classmethod
    def example_step(cls, model: Any, experiment: Experiment, member: Any) -> Tensor:
        loss: Tensor = model(torch.zeros(cls.clips_at_once(member), experiment.features.log_mel.n_mels)).sum()
        return loss

    def load(self, directory: Path) -> ClipLength:
        return ClipLength.load(directory)

    def start_from(self, directory: Path) -> ClipLength:
        return ClipLength.load(directory)

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
        means, lengths = _examples(self.train)
        order = self.rng(epoch).permutation(len(means))
        for at in range(0, len(order) - self.batch_size + 1, self.batch_size):
            rows = order[at : at + self.batch_size][rank::world]
            yield means[rows], lengths[rows]

    def loss(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        means, lengths = batch
        return {"loss": (model(means.to(device)) - lengths.to(device)).square().mean()}

    @torch.inference_mode()
    def validate(self, model: ClipLength) -> Validation:
        means, lengths = _examples(self.validation)
        return Validation({"squared_error": float((model(means) - lengths).square().mean())})


def _examples(features: Any) -> tuple[Tensor, Tensor]:
    means = torch.from_numpy(np.stack([np.asarray(one, np.float32).mean(0) for one in features.log_mels]))
    words = [np.mean([len(caption.split()) for caption in captions]) for captions in features.captions]
    return means, torch.tensor(words, dtype=torch.float32)
