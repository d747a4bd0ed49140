"""Distil several retrievers into one: their similarities within a batch are the student's soft targets.

After the second stage of Primus, Schmid and Widmer (DCASE Workshop 2024, arXiv 2408.11641): the correspondence of clip
i and caption j, as an ensemble estimates it, takes the place of "matches if i = j". Retrievers of different losses have
similarities of different scales (a distance under a learned metric, a cosine times a learned factor). So each row is
standardised before its softmax, the student's as well as the teachers' (Sun et al., CVPR 2024, arXiv 2403.01427,
section 4): order and relative gaps are learned, and one temperature suits all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from ..distributed import gather_rows
from .optimal_transport import MahalanobisMetric, pairwise_distance

SMALLEST_DEVIATION = 1e-6  # of a row's similarities; all of them alike say nothing


@dataclass(frozen=True)
class TeacherEmbeddings:
    """A teacher's embeddings of a worker's pairs."""

    audio: Tensor  # [B, D]
    text: Tensor  # [B, D]; row i is of the caption that the student reads with clip i
    metric: MahalanobisMetric  # of the teacher

    def similarity(self) -> Tensor:
        """Return the teacher's similarities [texts, clips] of all workers' pairs, in float32, without a gradient."""
        device = self.metric.factor.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            audio, text = (
                self.metric(gather_rows(rows.to(device, torch.float32, non_blocking=True)))
                for rows in (self.audio, self.text)
            )
            return -pairwise_distance(text, audio)


@dataclass(frozen=True)
class SoftTargets:
    """What teachers say of a batch, and how much that counts."""

    teachers: list[TeacherEmbeddings]
    temperature: float
    weight: float  # of the distillation loss, from 0 to 1; the student's own loss has the rest

    def join(self, own: Tensor, similarity: Tensor) -> dict[str, Tensor]:
        """Return `loss`, and without a gradient its parts `pair_loss` and `distillation_loss`.

        Args:
            own: the student's loss of these pairs.
            similarity: of the student, [texts, clips] of all workers' pairs.
        """
        teachers = [teacher.similarity() for teacher in self.teachers]
        distilled = similarity_distillation_loss(similarity, teachers, self.temperature)
        whole = (1 - self.weight) * own + self.weight * distilled
        return {"loss": whole, "pair_loss": own.detach(), "distillation_loss": distilled.detach()}


def standardised(similarity: Tensor) -> Tensor:
    """Return similarities [N, M] whose rows have the mean 0 and the standard deviation 1."""
    deviation, mean = torch.std_mean(similarity, dim=1, keepdim=True, correction=0)
    return (similarity - mean) / deviation.clamp_min(SMALLEST_DEVIATION)


def mean_softmax(similarities: list[Tensor], temperature: float) -> Tensor:
    """Return the mean over teachers of the softmax of each standardised row, [N, M].

    Args:
        similarities: of each teacher, [N, M].
        temperature: above 0; lower is sharper.
    """
    return torch.stack([(standardised(one) / temperature).softmax(1) for one in similarities]).mean(0)


def similarity_distillation_loss(similarity: Tensor, teachers: list[Tensor], temperature: float) -> Tensor:
    """Compute KL(teachers || student) of a query's distribution over the batch, averaged over queries and directions.

    Captions look for clips (rows), and clips for captions (columns).

    Args:
        similarity: of the student, [texts, clips].
        teachers: the similarities of each teacher, likewise.
        temperature: of the teachers' softmax and the student's.
    """
    by_text = _divergence(similarity, teachers, temperature)
    by_audio = _divergence(similarity.T, [one.T for one in teachers], temperature)
    return (by_text + by_audio) / 2


def _divergence(similarity: Tensor, teachers: list[Tensor], temperature: float) -> Tensor:
    target = mean_softmax(teachers, temperature)
    own = (standardised(similarity) / temperature).log_softmax(1)
    return kl_div(own, target, reduction="batchmean")
