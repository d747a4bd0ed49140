"""Attention with dropout on CPUs, a few heads at a time.

torch has no fused kernel for attention with dropout on CPUs: scores, probabilities, what is dropped and all their
gradients go through memory as [B, heads, T, T] each, and every cell costs a random number of its own. Here a block of
heads stays in the cache from its scores to its output, probabilities are computed again in the backward pass, and four
cells share a random number of 64 bits. The distribution is that of torch, the random numbers are others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CELLS = 2**21  # scores held at a time: 8 MiB
LEVELS = 2**16  # of a draw: the probability of dropping is rounded to one of them


def is_blocked(query: Tensor, dropout: float) -> bool:
    """Return whether attention of these queries with dropout is computed faster by blocks."""
    return dropout > 0 and query.device.type == "cpu" and query.dtype != torch.bfloat16


def blocked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scale: float
) -> Tensor:
    """Compute dropout(softmax(scale * QK' + mask)) V.

    Args:
        query: [B, heads, T, D].
        key, value: [B, heads, S, D].
        mask: added to the scores, or bool, true where attended; broadcast to [B, heads, T, S].
        dropout: probability of dropping a cell.

    Returns:
        [B, heads, T, D].
    """
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
        mask = mask.expand(len(query), query.shape[1], query.shape[2], key.shape[2])
    output: Tensor = _Blocked.apply(query, key, value, mask, dropout, scale)
    return output


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scale: float
    ) -> Tensor:
        threshold = round(dropout * LEVELS)
        query, key, value = (one.contiguous() for one in (query, key, value))
        output, kept = torch.empty_like(query), []
        for at in _blocks(query, key):
            probabilities = _probabilities(query[at], key[at], None if mask is None else mask[at], scale)
            keep = _draws(probabilities.shape) >= threshold - LEVELS // 2
            kept.append(keep)
            torch.bmm(probabilities.mul_(keep), value[at], out=output[at])
        output *= LEVELS / (LEVELS - threshold)
        ctx.save_for_backward(query, key, value, mask, output, *kept)
        ctx.scale, ctx.up = scale, LEVELS / (LEVELS - threshold)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, output, *kept = ctx.saved_tensors
        gradient = gradient.contiguous()
        down = (gradient * output).sum(-1, keepdim=True)
        to_query, to_key, to_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for at, keep in zip(_blocks(query, key), kept, strict=True):
            probabilities = _probabilities(query[at], key[at], None if mask is None else mask[at], ctx.scale)
            upward = gradient[at] * ctx.up
            scores = torch.bmm(upward, value[at].transpose(1, 2)).mul_(keep).sub_(down[at]).mul_(probabilities)
            torch.bmm(probabilities.mul_(keep).transpose(1, 2), upward, out=to_value[at])
            torch.bmm(scores, key[at], out=to_query[at])
            torch.bmm(scores.transpose(1, 2), query[at], out=to_key[at])
        return to_query.mul_(ctx.scale), to_key.mul_(ctx.scale), to_value, None, None, None


def _blocks(query: Tensor, key: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield a clip and some of its heads at a time."""
    chunk_size = max(1, CELLS // (query.shape[2] * key.shape[2]))
    for clip in range(len(query)):
        for head in range(0, query.shape[1], chunk_size):
            yield clip, slice(head, head + chunk_size)


def _probabilities(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    scores = torch.bmm(query, key.transpose(1, 2)).mul_(scale)
    if mask is not None:
        scores += mask
    return torch.softmax(scores, -1, out=scores)


def _draws(shape: torch.Size) -> Tensor:
    """Draw uniform int16, four from each 64 random bits."""
    wide = torch.empty(-(-shape.numel() // 4), dtype=torch.int64)
    # The whole range of int64.
    return wide.random_(torch.iinfo(torch.int64).min, None).view(torch.int16)[: shape.numel()].view(shape)
