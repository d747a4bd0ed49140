"""Long clips in windows: how much context a frame of a convolutional encoder needs, and the windows that give it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Convolution(NamedTuple):
    """A 1-d convolution: steps of its input that the (dilated) kernel reaches over, its stride, zeros on the left."""

    span: int
    stride: int
    padding: int


class ReceptiveField(NamedTuple):
    """Frame t depends on the samples t * hop - left to t * hop + right, both included, and on no others."""

    left: int
    right: int
    hop: int


class Window(NamedTuple):
    """Samples start to stop of a clip, and which of the frames that they give are the same as the whole clip's."""

    start: int
    stop: int
    frames: slice


def receptive_field(convolutions: Iterable[Convolution]) -> ReceptiveField:
    """Of convolutions in series; branches that run beside a longer one add nothing and are left out."""
    left, right, hop = 0, 0, 1
    for convolution in convolutions:
        left += convolution.padding * hop
        right += (convolution.span - 1 - convolution.padding) * hop
        hop *= convolution.stride
    return ReceptiveField(left, right, hop)


def windows(samples: int, kept: int, field: ReceptiveField) -> Iterator[Window]:
    """Cut a clip into windows of `kept` frames each (the last may have fewer) plus their context.

    Inside a window the encoder pads its edges as if the clip began or ended there. That reaches exactly as many frames
    as the receptive field says; these are left out. At the clip's own ends nothing is left out. Windows begin at
    multiples of the hop, so that strided convolutions hit the same samples.
    """
    frames = math.ceil(samples / field.hop)
    before = math.ceil(field.left / field.hop)
    after = max(0, math.ceil((field.right - (field.hop - 1)) / field.hop))
    for first in range(0, frames, kept):
        last = min(first + kept, frames)
        start = max(0, first - before)
        stop = min(samples, (last + after) * field.hop)
        yield Window(start * field.hop, stop, slice(first - start, last - start))
