"""Distil several retrievers into one: their similarities within a batch are the student's soft targets.

After the second stage of Primus, Schmid and Widmer (DCASE Workshop 2024, arXiv 2408.11641): the correspondence of clip
i and caption j, as an ensemble estimates it, takes the place of "matches if i = j". The distribution of a query over a
batch is a softmax at the scale at which the retriever's own loss takes its similarities (`LossScale`): what a teacher
believes is what it was trained to say, and retrievers of different losses are comparable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from ..distributed import gather_rows
from .optimal_transport import MahalanobisMetric, pairwise_distance

MARGIN_TEMPERATURE = 0.07  # of cosines in a softmax where the loss, the triplet loss, has none: that of CLIP


@dataclass(frozen=True)
class LossScale:
    """The scale of similarities in the softmax that a retriever's loss implies.

    m-ltm: -d / (epsilon * the batch's largest d), the exponent of its transport plan. nt-xent and triplet: -d²/2, for
    unit rows under the identity the cosine minus 1, over a temperature.
    """

    loss: str
    epsilon: float  # m-ltm
    factor: Tensor | float  # 1 / temperature

    def logits(self, distances: Tensor) -> Tensor:
        """Return the logits [N, M] of distances [N, M]."""
        if self.loss == "m-ltm":
            return distances / (-self.epsilon * distances.detach().max())
        return distances.square() * self.factor / -2


@dataclass(frozen=True)
class TeacherEmbeddings:
    """A teacher's embeddings of a worker's pairs."""

    audio: Tensor  # [B, D]
    text: Tensor  # [B, D]; row i is of the caption that the student reads with clip i
    metric: MahalanobisMetric  # of the teacher
    scale: LossScale

    def logits(self) -> Tensor:
        """Return the teacher's logits [texts, clips] of all workers' pairs, in float32, without a gradient."""
        device = self.metric.factor.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            audio, text = (
                self.metric(gather_rows(rows.to(device, torch.float32, non_blocking=True)))
                for rows in (self.audio, self.text)
            )
            return self.scale.logits(pairwise_distance(text, audio))


@dataclass(frozen=True)
class SoftTargets:
    """What teachers say of a batch, and how much that counts."""

    teachers: list[TeacherEmbeddings]
    temperature: float
    weight: float  # of the distillation loss, from 0 to 1; the student's own loss has the rest

    def join(self, own: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """Return `loss`, and without a gradient its parts `pair_loss` and `distillation_loss`.

        Args:
            own: the student's loss of these pairs.
            logits: of the student, [texts, clips] of all workers' pairs.
        """
        teachers = [teacher.logits() for teacher in self.teachers]
        distilled = similarity_distillation_loss(logits, teachers, self.temperature)
        whole = (1 - self.weight) * own + self.weight * distilled
        return {"loss": whole, "pair_loss": own.detach(), "distillation_loss": distilled.detach()}


def mean_softmax(logits: list[Tensor], temperature: float) -> Tensor:
    """Return the mean over teachers of the softmax of each row, [N, M].

    Args:
        logits: of each teacher, [N, M].
        temperature: above 0; lower is sharper.
    """
    return torch.stack([(one / temperature).softmax(1) for one in logits]).mean(0)


def similarity_distillation_loss(logits: Tensor, teachers: list[Tensor], temperature: float) -> Tensor:
    """Compute KL(teachers || student) of a query's distribution over the batch, averaged over queries and directions.

    Captions look for clips (rows), and clips for captions (columns).

    Args:
        logits: of the student, [texts, clips].
        teachers: the logits of each teacher, likewise.
        temperature: of the teachers' softmax and the student's.
    """
    by_text = _divergence(logits, teachers, temperature)
    by_audio = _divergence(logits.T, [one.T for one in teachers], temperature)
    return (by_text + by_audio) / 2


def _divergence(logits: Tensor, teachers: list[Tensor], temperature: float) -> Tensor:
    return kl_div((logits / temperature).log_softmax(1), mean_softmax(teachers, temperature), reduction="batchmean")
