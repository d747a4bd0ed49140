"""Clips with more codec frames than the language model has positions: cut, in windows, pooled or interpolated.

What becomes of a clip depends on its own length alone, never on what else is in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """W windows of B clips: each clip is divided into as few as fit, of one length (its last may be shorter)."""

    clip: Tensor  # [W] the clip that each is of
    frames: Tensor  # [W, F] its frames' numbers in the clip; beyond the clip's end where padded
    lengths: Tensor  # [W] its own number of frames
    first_row: Tensor  # [W] where its encoder states begin in the clip's
    rows: Tensor  # [B] encoder states of each clip
    columns: Tensor  # [B, T] the encoder state of each frame


def cut_windows(lengths: Tensor, frames: int, most: int, special: int) -> Windows:
    """Divide clips of `lengths` [B] frames, padded to `frames`, into windows of at most `most` frames.

    Each window's encoder input has `special` rows beside its frames, the last of them behind the frames.
    """
    device = lengths.device
    number = -(-lengths // most)
    size = -(-lengths // number)
    clip = torch.arange(len(lengths), device=device).repeat_interleave(number)
    nth = torch.arange(len(clip), device=device) - (number.cumsum(0) - number)[clip]
    start = nth * size[clip]
    own = torch.minimum(size[clip], lengths[clip] - start)
    at = torch.arange(frames, device=device)
    return Windows(
        clip=clip,
        frames=start[:, None] + torch.arange(int(own.max()), device=device),
        lengths=own,
        first_row=nth * (size[clip] + special),
        rows=lengths + special * number,
        columns=at + special * (at // size[:, None]) + special - 1,
    )


def join_windows(states: Tensor, mask: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The states [W, R, width] of windows, masked by [W, R], clip by clip: [B, rows, width] and their mask."""
    most = int(windows.rows.max())
    at = torch.arange(most, device=states.device)
    joined = states.new_zeros(len(windows.rows), most, states.shape[2])
    valid = mask.bool()
    column = windows.first_row[:, None] + torch.arange(states.shape[1], device=states.device)
    clip = windows.clip[:, None].expand_as(column)
    return joined.index_put((clip[valid], column[valid]), states[valid]), (at < windows.rows[:, None]).long()


def pool_frames(vectors: Tensor, lengths: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Average as few neighbouring frames as bring each clip down to `most`; shorter clips stay as they are.

    Args:
        vectors: [B, T, width], zero behind each clip's end.

    Returns:
        [B, most, width], its valid lengths [B], and the pooled frame [B, T] of each frame.
    """
    factor = (-(-lengths // most)).clamp_min(1)[:, None]
    at = torch.arange(vectors.shape[1], device=vectors.device)
    pooled_at = (at // factor).clamp_max(most - 1)
    index = pooled_at[:, :, None].expand_as(vectors)
    summed = vectors.new_zeros(len(vectors), most, vectors.shape[2]).scatter_add(1, index, vectors)
    first = torch.arange(most, device=vectors.device) * factor
    frames = torch.minimum(factor, lengths[:, None] - first).clamp_min(1)
    return summed / frames[:, :, None], -(-lengths // factor[:, 0]), pooled_at


def interpolate_rows(table: Tensor, steps: Tensor, rows: int) -> Tensor:
    """Vectors between those of `table` [P, width], `steps` [B] apart, at most 1: [B, rows, width]."""
    place = (torch.arange(rows, device=table.device) * steps[:, None]).clamp_max(len(table) - 1)
    below = place.long()
    above = (below + 1).clamp_max(len(table) - 1)
    share = (place - below)[:, :, None].to(table.dtype)
    return torch.lerp(table[below], table[above], share)
