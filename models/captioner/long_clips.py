"""Handle clips with more codec frames than the language model has positions: in windows, pooled or interpolated.

The result for a clip depends on its own length alone, never on what else is in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..rows import take_rows


@dataclass(frozen=True)
class Windows:
    """W windows of B clips: as few as possible for each clip, of equal length (its last may be shorter)."""

    clip: Tensor  # [W] the clip of each window
    frames: Tensor  # [W, F] the numbers of its frames in the clip; beyond the clip's end where padded
    lengths: Tensor  # [W] its number of frames without padding
    first_row: Tensor  # [W] the position of its first encoder state among the clip's
    rows: Tensor  # [B] the number of encoder states of each clip
    columns: Tensor  # [B, T] the number of each frame's encoder state


def cut_windows(lengths: Tensor, frames: int, most: int, special: int) -> Windows:
    """Divide clips of `lengths` [B] frames, padded to `frames`, into windows of at most `most` frames.

    The encoder input of each window has `special` rows besides its frames, the last of them after the frames.
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
    """Join the states of windows clip by clip.

    Args:
        states: [W, R, width].
        mask: [W, R], of valid states.

    Returns:
        [B, rows, width] and their mask [B, rows].
    """
    most = int(windows.rows.max())
    at = torch.arange(most, device=states.device)
    joined = states.new_zeros(len(windows.rows), most, states.shape[2])
    valid = mask.bool()
    column = windows.first_row[:, None] + torch.arange(states.shape[1], device=states.device)
    clip = windows.clip[:, None].expand_as(column)
    return joined.index_put((clip[valid], column[valid]), states[valid]), (at < windows.rows[:, None]).long()


def pool_frames(vectors: Tensor, lengths: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Average neighbouring frames, as few as shorten each clip to `most` frames; shorter clips stay as they are.

    Args:
        vectors: [B, T, width], zero after each clip's end.
        lengths: [B] valid frames.

    Returns:
        [B, most, width], their valid lengths [B], and the number [B, T] of each frame's pooled frame.
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
    """Interpolate `rows` vectors from `table` [P, width] at distances of `steps` [B], at most 1: [B, rows, width]."""
    place = (torch.arange(rows, device=table.device) * steps[:, None]).clamp_max(len(table) - 1)
    below = place.long()
    above = (below + 1).clamp_max(len(table) - 1)
    share = (place - below)[:, :, None].to(table.dtype)
    return torch.lerp(take_rows(table, below), take_rows(table, above), share)
