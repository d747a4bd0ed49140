"""Read what a retriever says, as a teacher, of a student's training clips: its embeddings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.retriever.distillation import LossScale
from models.retriever.model import Retriever
from models.retriever.optimal_transport import MahalanobisMetric
from ray_jobs.features.dataset import Features
from ray_jobs.features.embeddings import Embeddings, read_caption_embeddings, read_embeddings, weights_checksum
from ray_jobs.results.member import checked_weights


@dataclass(frozen=True)
class RetrieverTeacher:
    """A retriever by its embeddings of a student's training clips and of all their captions, made once by its job."""

    audio: Embeddings  # [clips, D]
    captions: Embeddings  # [captions, D], clip by clip
    first: np.ndarray  # [clips], the row of each clip's first caption
    metric: MahalanobisMetric
    scale: LossScale

    @classmethod
    def open(cls, member: Path, name: str, splits: list[Path], clips: Features) -> RetrieverTeacher:
        """Open the embeddings of some splits, which are read where they are used.

        Args:
            member: the directory of the teacher.
            clips: the features of `splits`.

        Raises:
            FeaturesError: if embeddings are missing, or of other weights or clips.
            RecordError: if the weights are not the recorded ones.
        """
        weights = weights_checksum(member)
        teacher = Retriever.load(checked_weights(member)).requires_grad_(False)
        scale = teacher.loss_scale
        return cls(
            audio=read_embeddings(splits, name, weights, clips.clip_ids),
            captions=read_caption_embeddings(splits, name, weights, clips),
            first=np.cumsum([0, *map(len, clips.captions[:-1])]),
            metric=teacher.metric,
            scale=replace(scale, factor=float(scale.factor)),
        )

    def of(self, clips: np.ndarray, drawn: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the embeddings [B, D] of clips, and of the caption drawn of each.

        Args:
            clips: [B], their rows.
            drawn: [B], the place of the caption among those of its clip.
        """
        rows = self.first[clips] + drawn
        return torch.from_numpy(self.audio[clips]), torch.from_numpy(self.captions[rows])
