"""Masked codec modelling, EnCLAP's auxiliary loss (arXiv 2401.17690, section on MCM)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def span_mask(
    lengths: Tensor,
    frames: int,
    codebooks: int,
    probability: float,
    span: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw the cells to mask: spans of frames, independently for each clip and codebook.

    About `probability` of a clip's cells are covered by spans of `span` frames (spans may overlap). The number of
    spans, `probability * length / span` plus a uniform draw, rounded down, is shared by a clip's codebooks. A clip
    shorter than a span has the whole of it masked when a span is drawn.

    Args:
        lengths: [B] valid frames of each clip.
        frames: width of the result.

    Returns:
        [B, frames, codebooks] bool, false behind each clip's length.
    """
    batch, device = len(lengths), lengths.device
    draw = torch.rand(batch, generator=generator, device=device)
    spans = (probability * lengths / span + draw).long()
    most = int(spans.max()) if batch else 0
    if not most:
        return torch.zeros(batch, frames, codebooks, dtype=torch.bool, device=device)
    room = (lengths - span).clamp_min(0) + 1
    uniform = torch.rand(batch, most, codebooks, generator=generator, device=device)
    starts = (uniform * room[:, None, None]).long()
    drawn = torch.arange(most, device=device)[None, :, None] < spans[:, None, None]
    # +1 where a span starts, -1 behind its end: the running sum counts the spans over each frame.
    edges = torch.zeros(batch, frames + span + 1, codebooks, dtype=torch.int32, device=device)
    weight = drawn.expand_as(starts).to(torch.int32)
    edges.scatter_add_(1, starts, weight).scatter_add_(1, starts + span, -weight)
    covered = edges.cumsum(1)[:, :frames] > 0
    return covered & (torch.arange(frames, device=device) < lengths[:, None])[:, :, None]


def masked_codec_loss(logits: Tensor, codes: Tensor, mask: Tensor) -> Tensor:
    """sum over codebooks q = 1..Q of 2^-q times the mean cross-entropy of that codebook's masked cells in the batch.

    Args:
        logits: [N, Q, entries] of N frames of the batch.
        codes: [N, Q] the original codes.
        mask: [N, Q] cells that were masked; a codebook without any adds 0.
    """
    codebooks = codes.shape[1]
    per_cell = cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(mask)
    means = (per_cell * mask).sum(0) / mask.sum(0).clamp_min(1)
    weights = 0.5 ** torch.arange(1, codebooks + 1, device=logits.device, dtype=means.dtype)
    return (weights * means).sum()
