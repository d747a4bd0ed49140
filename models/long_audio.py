"""Cut long recordings into windows that are read as files of their own, without ever holding all of one in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .audio import AudioError
from .audio_sources import Recording, as_wav
from .errors import InputError

LEAST_S = 0.1  # of sound after the last whole window: less, as codecs add to the end, gets no window


@dataclass(frozen=True)
class AudioWindow:
    """A stretch of a recording; `recording` is that stretch alone, as a file."""

    start_s: float
    end_s: float
    recording: Recording


@dataclass(frozen=True)
class Windowing:
    """How long windows are, and how far their beginnings lie apart: less than their length where they overlap."""

    window_s: float
    hop_s: float

    @classmethod
    def of(cls, window_s: float | None, hop_s: float | None, longest_s: float) -> Windowing | None:
        """Check what a user asks for; windows that are not told how far apart lie side by side.

        Args:
            longest_s: what is read of a clip.

        Returns:
            None where no windows are asked for.

        Raises:
            InputError: naming the argument that is not a number above 0, or is too large; or there is only a hop.
        """
        if window_s is None:
            if hop_s is not None:
                raise InputError(f"hop_s: found {hop_s!r} without window_s; give both, or window_s alone")
            return None
        hop_s = window_s if hop_s is None else hop_s
        for name, value, most, why in (
            ("window_s", window_s, longest_s, "what is heard of a clip"),
            ("hop_s", hop_s, window_s, "the length of a window: no sound may lie between two"),
        ):
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not number or not LEAST_S <= value <= most:
                raise InputError(f"{name}: found {value!r}, expected seconds from {LEAST_S:g} to {most:g}, {why}")
        return cls(float(window_s), float(hop_s))

    def number(self, duration_s: float) -> int:
        """Return about how many windows a recording of some seconds has, silent ones counted."""
        return 1 + max(0, math.ceil((duration_s - self.window_s - LEAST_S) / self.hop_s))


def cut(recording: Recording, windowing: Windowing) -> Iterator[AudioWindow]:
    """Yield the windows of a recording of any length, in their order, while it is decoded.

    All are equally long: the last one ends with the recording, and overlaps the one before it by more than the others.
    A recording that is shorter than a window is one. Windows of digital silence are left out.

    Raises:
        AudioError: as of `load_audio`; what is wrong with the end of a file is found after the windows before it.
    """
    window, last = None, None
    for window in _spans(recording, windowing):
        if np.ptp(window.samples):
            start_s, end_s = window.start / window.rate, (window.start + len(window.samples)) / window.rate
            name = f"{recording.name} from {start_s:.1f} s to {end_s:.1f} s"
            last = AudioWindow(start_s, end_s, Recording(name, as_wav(window.samples, window.rate, name)))
            yield last
    if window and not last:
        raise AudioError(f"{recording.name}: is digital silence (every sample is {window.samples[0]:g})")


@dataclass(frozen=True)
class _Span:
    start: int  # in samples from the beginning
    samples: npt.NDArray[np.float32]  # [time], the mean of the channels
    rate: int


def _spans(recording: Recording, windowing: Windowing) -> Iterator[_Span]:
    """Yield all windows; held are the samples from the last one's beginning on, and a block."""
    held, begin, end, covered, number = [np.empty(0, np.float32)], 0, 0, 0, 0
    start = size = rate = 0
    for samples, rate in recording.blocks():
        held.append(samples.mean(axis=1))
        size, end = round(windowing.window_s * rate), end + len(samples)
        while start + size <= end:
            joined = np.concatenate(held)
            yield _Span(start, joined[start - begin :][:size], rate)
            held, begin, covered = [joined[start - begin :]], start, start + size
            number += 1
            start = round(number * windowing.hop_s * rate)
    if not covered or end - covered > LEAST_S * rate:
        start = max(0, end - size)
        yield _Span(start, np.concatenate(held)[start - begin :], rate)
