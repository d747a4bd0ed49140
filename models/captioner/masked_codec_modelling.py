"""Masked codec modelling, EnCLAP's auxiliary loss (arXiv 2401.17690, section on MCM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def most_spans(frames: int, probability: float, span: int) -> int:
    """Return the largest number of spans that `span_mask` draws for a codebook of a clip of `frames` frames."""
    return min(int(probability * frames / span + 1), frames // span)


def span_mask(
    lengths: Tensor,
    frames: int,
    codebooks: int,
    probability: float,
    span: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw the cells to mask: spans of frames, independently for each clip and codebook.

    About `probability` of a clip's cells are covered by spans of `span` frames, which start at different frames but may
    overlap. The number of spans, `probability * length / span` plus a uniform draw, rounded down, is shared by a clip's
    codebooks, and no more than fit side by side: a clip shorter than a span has none.

    Args:
        lengths: [B] valid frames of each clip.
        frames: width of the result.
        span: frames of a span.

    Returns:
        [B, frames, codebooks] bool, false after each clip's end.
    """
    batch, device, most = len(lengths), lengths.device, most_spans(frames, probability, span)
    if not most:
        return torch.zeros(batch, frames, codebooks, dtype=torch.bool, device=device)
    draw = torch.rand(batch, generator=generator, device=device)
    spans = torch.minimum((probability * lengths / span + draw).long(), lengths // span)
    # The first frames of a random order of all where a span may start.
    keys = torch.rand(batch, codebooks, frames - span + 1, generator=generator, device=device)
    outside = torch.arange(keys.shape[2], device=device) > (lengths - span)[:, None]
    starts = keys.masked_fill(outside[:, None], -1).topk(most, 2).indices
    drawn = (torch.arange(most, device=device) < spans[:, None])[:, None].expand_as(starts).int()
    # +1 where a span starts, -1 after its end: the running sum counts the spans over each frame.
    edges = torch.zeros(batch, codebooks, frames + 1, dtype=torch.int32, device=device)
    edges = edges.scatter_add(2, starts, drawn).scatter_add(2, starts + span, -drawn)
    return (edges.cumsum(2)[:, :, :frames] > 0).transpose(1, 2)


def masked_cells(mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Find the masked cells of a batch, codebook by codebook, in shapes that do not depend on the mask.

    Args:
        mask: [B, T, Q].
        most: the largest number of masked cells of a codebook in the batch.

    Returns:
        cells [Q, most], numbered from 0 to B * T - 1, and [Q, most] bool, false where `cells` is padded.
    """
    by_codebook = mask.flatten(0, 1).T
    cells = by_codebook.int().topk(most, 1, sorted=False).indices
    return cells, by_codebook.gather(1, cells)


def masked_codec_loss(
    logits: Tensor, codes: Tensor, mask: Tensor, codebook_weights: Sequence[float] | None = None
) -> Tensor:
    """Compute the loss of masked codes: the mean cross-entropy of each codebook q = 1..Q, times 2^-q, summed up.

    Args:
        logits: [Q, N, entries] of N cells of each codebook.
        codes: [Q, N] the original codes.
        mask: [Q, N] cells that were masked; a codebook without any adds 0.
        codebook_weights: Q factors in place of 2^-q.
    """
    per_cell = cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(mask)
    means = (per_cell * mask).sum(1) / mask.sum(1).clamp_min(1)
    weights = codebook_weights or [0.5**q for q in range(1, len(codes) + 1)]
    return (means * means.new_tensor(weights)).sum()
