"""Token-level distillation: the mean of several captioners' next-token distributions is a student's soft target.

This is word-level knowledge distillation (Kim and Rush, 2016, arXiv 1606.07947, section 3.1) from a token ensemble that
averages probabilities. All captioners read the same captions, so they must share one tokenizer. The distributions of a
whole vocabulary are too large to be stored for every training caption, so the teachers run in every step: forward
passes alone, without gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div

IGNORED = -100  # labels where captions are padded


@dataclass(frozen=True)
class TokenTargets:
    """What teachers expect of every token of a batch's captions, and how much that counts."""

    log_probabilities: Tensor  # [N, S, vocabulary], of the mean of the teachers' distributions
    temperature: float
    weight: float  # of the divergence, from 0 to 1; the references have the rest

    def join(self, logits: Tensor, labels: Tensor, caption_loss: Tensor) -> dict[str, Tensor]:
        """Return `loss`, the weighted mean of the caption loss and the divergence, and `distillation_loss` alone.

        Args:
            logits: of the student, [N, S, vocabulary].
            labels: [N, S], -100 where padded.
            caption_loss: of the references.
        """
        distilled = token_distillation_loss(logits, self.log_probabilities, labels, self.temperature)
        whole = (1 - self.weight) * caption_loss + self.weight * distilled
        return {"loss": whole, "distillation_loss": distilled.detach()}


def token_distillation_loss(logits: Tensor, teachers: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Compute temperature² * KL(teachers || student), averaged over tokens, in float32 at least.

    The factor keeps the size of the gradient (Hinton et al., arXiv 1503.02531, section 2).

    Args:
        logits: of the student, [N, S, vocabulary].
        teachers: log-probabilities [N, S, vocabulary] at this temperature.
        labels: [N, S], -100 where padded, which does not count.
        temperature: of both distributions.
    """
    counted = labels != IGNORED  # as a mask: rows picked by it would make a GPU wait to learn their number
    own = (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)
    divergence = kl_div(own, teachers, reduction="none", log_target=True).sum(-1)
    return temperature**2 * divergence.masked_fill(~counted, 0).sum() / counted.sum()


@torch.no_grad()
def mean_log_probabilities(
    captioners: Sequence[Any], codes: Sequence[np.ndarray], audio: Sequence[Tensor], labels: Tensor, temperature: float
) -> Tensor:
    """Return the log of the mean of captioners' next-token distributions, [N, S, vocabulary] float32.

    Args:
        captioners: `Captioner`s with the student's tokenizer, in evaluation mode.
        codes: [T_i, Q] of B clips.
        audio: the audio embeddings [B, D] that each captioner reads.
        labels: [N, S] of the student's captions, -100 where padded; N / B captions a clip, clip by clip.
        temperature: divisor of the logits.
    """
    each, found = len(labels) // len(codes), list[Tensor]()
    for captioner, embeddings in zip(captioners, audio, strict=True):
        batch, lengths = captioner.pad_codes(codes)
        states, mask = captioner.encode(batch, lengths, embeddings.to(batch.device, non_blocking=True))
        logits = captioner.caption_logits(states.repeat_interleave(each, 0), mask.repeat_interleave(each, 0), labels)
        found.append((logits.float() / temperature).log_softmax(-1))
    return torch.stack(found).logsumexp(0) - math.log(len(found))
