"""Encode clips of different lengths in one batch, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Correction = Callable[[Any, Tensor, list[int]], None]  # of modules of one kind


@contextmanager
def corrected_ends(
    convolutions: Iterable[nn.Module], lengths: Sequence[int], samples: int, correction: Correction
) -> Iterator[None]:
    """Correct the input of convolutions where a shorter clip has ended, while an encoder runs on a batch.

    A convolution pads its input at the end of the batch, but a clip's own end may come earlier. There, `correction`
    puts in place what the padding would be if the clip were alone. It is called with the convolution, its input
    [B, channels, steps], which it changes in place, and each clip's own number of steps.

    Args:
        convolutions: those that see beyond a step.
        lengths: samples of each clip, of which a batch of equal lengths needs no correction.
        samples: of the padded batch, a multiple of the hop.
    """

    def before(convolution: nn.Module, inputs: tuple[Any, ...]) -> None:
        stride = samples // inputs[0].shape[-1]
        correction(convolution, inputs[0], [-(-length // stride) for length in lengths])

    unequal = any(length != samples for length in lengths)
    hooks = [one.register_forward_pre_hook(before) for one in convolutions] if unequal else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def zero_after_end(_: nn.Module, x: Tensor, ends: list[int]) -> None:
    """Zero x [B, channels, steps] from each clip's end on, as a convolution pads with zeros."""
    first = min(ends)  # of a batch sorted by length most steps belong to all clips
    at = torch.arange(first, x.shape[-1], device=x.device)
    x[..., first:].masked_fill_((at >= torch.tensor(ends, device=x.device)[:, None])[:, None], 0)
