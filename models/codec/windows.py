"""Cut long clips into windows with the context that the frames of a convolutional encoder depend on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Convolution(NamedTuple):
    """A 1-d convolution: input steps that the (dilated) kernel spans, its stride, and its padding on the left."""

    span: int
    stride: int
    padding: int


class ReceptiveField(NamedTuple):
    """Frame t depends on the samples t * hop - left to t * hop + right, both included, and on no others."""

    left: int
    right: int
    hop: int


class Window(NamedTuple):
    """Samples start to stop of a clip, and those of their frames that are the same as the whole clip's."""

    start: int
    stop: int
    frames: slice


def receptive_field(convolutions: Iterable[Convolution]) -> ReceptiveField:
    """Return the receptive field of convolutions in series; branches beside a longer one must be left out."""
    left, right, hop = 0, 0, 1
    for convolution in convolutions:
        left += convolution.padding * hop
        right += (convolution.span - 1 - convolution.padding) * hop
        hop *= convolution.stride
    return ReceptiveField(left, right, hop)


def windows(samples: int, kept: int, field: ReceptiveField) -> Iterator[Window]:
    """Cut a clip into windows of `kept` frames each (the last may have fewer) plus their context.

    The encoder pads the edges of a window as if the clip began or ended there. That changes as many frames as the
    receptive field says; these are left out. At the clip's own ends nothing is left out. Windows begin at multiples of
    the hop, so that strided convolutions see the same samples.
    """
    frames = math.ceil(samples / field.hop)
    before = math.ceil(field.left / field.hop)
    after = max(0, math.ceil((field.right - (field.hop - 1)) / field.hop))
    for first in range(0, frames, kept):
        last = min(first + kept, frames)
        start = max(0, first - before)
        stop = min(samples, (last + after) * field.hop)
        yield Window(start * field.hop, stop, slice(first - start, last - start))
