"""Caption a recording of any length: a caption for each window of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..arguments import batched
from ..audio_sources import Recording
from ..long_audio import Windowing, cut
from .captions import Caption


@dataclass(frozen=True)
class TimedCaption:
    """The caption of a window of a recording."""

    start_s: float
    end_s: float
    caption: Caption


@dataclass(frozen=True)
class Timeline:
    """The captions of a recording's windows, in their order; windows of digital silence have none."""

    duration_s: float
    segments: list[TimedCaption]


def timelines(
    recordings: Sequence[Recording],
    windowing: Windowing,
    batch_size: int,
    caption: Callable[[Sequence[Recording]], Sequence[Caption]],
) -> list[Timeline]:
    """Caption the windows of recordings, batched across them; held are those of a batch.

    Args:
        caption: returns the caption of each recording that it is given.

    Raises:
        AudioError: naming the recording that cannot be read.
    """
    found = [Timeline(one.duration_s(), []) for one in recordings]
    windows = ((window, of) for one, of in zip(recordings, found, strict=True) for window in cut(one, windowing))
    for batch in batched(windows, batch_size):
        captions = caption([window.recording for window, _ in batch])
        for (window, of), text in zip(batch, captions, strict=True):
            of.segments.append(TimedCaption(window.start_s, window.end_s, text))
    return found
