"""Contrastive losses of matching pairs, beside the m-LTM loss: NT-Xent and the bidirectional triplet loss.

Both compare the Mahalanobis distances that retrieval ranks by.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def nt_xent_loss(distance: Tensor, matching: Tensor, temperature: Tensor) -> Tensor:
    """Normalised temperature-scaled cross-entropy in both directions (SimCLR, arXiv 2002.05709; CLIP, 2103.00020).

    A row with several matching columns has its target spread evenly over them.

    Args:
        distance: [B, B] of audio (rows) and text (columns).
        matching: [B, B] bool, symmetric, true on the diagonal at least.
        temperature: [] that distances are divided by.
    """
    target = matching / matching.sum(1, keepdim=True)
    logits = -distance / temperature
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def triplet_loss(distance: Tensor, matching: Tensor, margin: float, hardest: bool) -> Tensor:
    """Bidirectional triplet loss: each pair `margin` nearer than the audio's and the text's other partners.

    Args:
        distance: [B, B] of audio (rows) and text (columns).
        matching: [B, B] bool, symmetric, true on the diagonal at least; such pairs are no negatives.
        margin: in units of the distance.
        hardest: take the nearest negative of the batch (VSE++, arXiv 1707.05612), else the mean over all negatives.
    """
    own = distance.diagonal()
    negatives = ~matching
    both = []
    for other, counted in ((distance, negatives), (distance.T, negatives.T)):
        violation = (margin + own[:, None] - other).clamp_min(0).masked_fill(~counted, 0)
        both.append(violation.amax(1) if hardest else violation.sum(1) / counted.sum(1).clamp_min(1))
    return torch.stack(both).sum(0).mean()
