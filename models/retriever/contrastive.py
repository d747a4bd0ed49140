"""Contrastive losses to compare m-LTM with: NT-Xent (as in CLIP) and the triplet loss, in both directions.

Both use the similarity s_ij = -d_ij² / 2 under the metric. For rows of unit length and the identity metric that is the
cosine minus 1, so the losses are the published ones; and clips rank by s as they do by -d, which retrieval uses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .optimal_transport import same_clip, squared_distance


def nt_xent_loss(
    audio: Tensor, text: Tensor, scale: Tensor | float, groups: Tensor | None = None, hard_negatives: int = 0
) -> Tensor:
    """Compute the cross-entropy of softmax(scale * s) with the matching partner, averaged over both directions.

    With `groups`, all n partners of the same clip are correct, each with a share of 1 / n; the loss is then at least
    log n.

    Args:
        audio: [B, D], already mapped by the metric.
        text: [B, D], likewise; row i describes row i of `audio`.
        scale: factor of the similarities: 1 / temperature.
        groups: [B], equal for pairs of the same clip.
        hard_negatives: how many of the most similar negatives count; 0: all.
    """
    similarity = _similarity(audio, text)
    right = same_clip(groups, similarity)
    to_text = _cross_entropy(scale * similarity, right, hard_negatives)
    return (to_text + _cross_entropy(scale * similarity.T, right.T, hard_negatives)) / 2


def triplet_loss(
    audio: Tensor, text: Tensor, margin: float, groups: Tensor | None = None, hard_negatives: int = 0
) -> Tensor:
    """Compute (1/B) sum_i sum_j max(0, margin + s_ij - s_ii) over the negatives j of i, summed over both directions.

    Args:
        audio: [B, D], already mapped by the metric.
        text: [B, D], likewise; row i describes row i of `audio`.
        margin: in units of the cosine.
        groups: [B], equal for pairs of the same clip, which are not each other's negatives.
        hard_negatives: how many of the most similar negatives count, 1 for the hardest alone; 0: all.
    """
    similarity = _similarity(audio, text)
    right = same_clip(groups, similarity)
    to_text = _violation(similarity, right, margin, hard_negatives)
    return to_text + _violation(similarity.T, right.T, margin, hard_negatives)


def _similarity(audio: Tensor, text: Tensor) -> Tensor:
    """Return -d²/2 [B, B], in float32 at least."""
    with torch.autocast(audio.device.type, enabled=False):
        precise = torch.promote_types(audio.dtype, torch.float32)
        return squared_distance(audio.to(precise), text.to(precise)) / -2


def _cross_entropy(logits: Tensor, right: Tensor, hard_negatives: int) -> Tensor:
    counted = right | _negatives(logits, right, hard_negatives)
    log_share = logits.masked_fill(~counted, -torch.inf).log_softmax(1)
    return -(log_share.masked_fill(~right, 0).sum(1) / right.sum(1)).mean()


def _violation(similarity: Tensor, right: Tensor, margin: float, hard_negatives: int) -> Tensor:
    excess = (margin + similarity - similarity.diagonal()[:, None]).clamp_min(0)
    return (excess * _negatives(similarity, right, hard_negatives)).sum(1).mean()


def _negatives(similarity: Tensor, right: Tensor, hardest: int) -> Tensor:
    """Return which cells [B, B] are negatives: all that are not right, or of these the `hardest` of each row."""
    if not 0 < hardest < len(similarity):
        return ~right
    found = similarity.detach().masked_fill(right, -torch.inf).topk(hardest, 1).indices
    return torch.zeros_like(right).scatter_(1, found, True) & ~right
