"""Decode what libsndfile does not know (AAC in MP4, WebM, WMA, ...) by FFmpeg's libraries, in the package PyAV."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt

from .errors import AudioError

# Files alone: playlists and other texts name further files and addresses, which FFmpeg would open.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tak,tta,w64,wav,webm,wv"
)
_STATING = ("asf", "avi", "caf", "flv", "matroska", "mov")  # whose length stands in a header; of others it is a guess
_TOLERANCE_S = 0.1  # the delay of a codec
_TOLERANCE = 0.01


def decode(
    file: BinaryIO, name: str, max_duration_s: float | None = None
) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Decode the first audio stream of a file, block by block.

    Args:
        file: open for reading, at its beginning.
        name: of the file in error messages.
        max_duration_s: decode at most this much from the beginning, in seconds.

    Yields:
        samples, [time, channels], and their rate in Hz.

    Raises:
        AudioError: if the file holds no sound, is truncated, changes its sample rate or channels, or cannot be decoded.
    """
    with _opened(file, name) as container:
        rate, wanted, found, cut = 0, sys.maxsize, 0, False
        for frame, samples in _frames(container, name):
            if not rate:
                rate = frame.sample_rate
                wanted = wanted if max_duration_s is None else round(max_duration_s * rate)
            yield samples[:, : wanted - found].T, rate
            found += samples.shape[1]
            if found >= wanted:
                return
            cut = frame.is_corrupt
        if cut:
            raise AudioError(f"{name}: is truncated: its last frame, at {found / rate:.1f} s, is not whole")
        stated_s = _stated_s(container)
        if stated_s and rate and found / rate < stated_s * (1 - _TOLERANCE) - _TOLERANCE_S:
            raise AudioError(f"{name}: is truncated: {found / rate:.1f} s of sound, the header says {stated_s:.1f} s")


def _frames(
    container: av.container.InputContainer, name: str
) -> Iterator[tuple[av.AudioFrame, npt.NDArray[np.float32]]]:
    """Yield what is decoded, with its samples, [channels, time]."""
    resampler, first, found = av.AudioResampler(format="fltp"), None, 0
    for frame in container.decode(container.streams.audio[0]):
        kind = (frame.sample_rate, len(frame.layout.channels))
        first = first or kind
        if kind != first:
            raise AudioError(
                f"{name}: changes its sample rate or channels after {found / first[0]:.1f} s; split it there"
            )
        found += frame.samples
        for converted in resampler.resample(frame):
            yield converted, converted.to_ndarray().astype(np.float32, copy=False)


def duration(file: BinaryIO, name: str) -> float:
    """Return the length in seconds of the first audio stream: as the header states, else by the times of its packets.

    Raises:
        AudioError: if the file holds no sound or cannot be read.
    """
    with _opened(file, name) as container:
        stream = container.streams.audio[0]
        stated_s = _stated_s(container)
        if stated_s:
            return stated_s
        ends = (packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None)
        return _seconds(max(ends, default=0), stream)


class _Source:
    """A file for FFmpeg, which damaged headers send to before its beginning: PyAV would print what that raises."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.read, self.tell = file, file.read, file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place, and return it, or -1 if there is none."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


@contextmanager
def _opened(file: BinaryIO, name: str) -> Iterator[av.container.InputContainer]:
    """Yield a file that holds an audio stream."""
    try:
        source: Any = _Source(file)
        with av.open(source, "r", options={"format_whitelist": _CONTAINERS}, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: cannot be decoded as audio (it holds no sound)")
            if container.streams.audio[0].codec_context is None:
                raise AudioError(f"{name}: cannot be decoded as audio (FFmpeg does not know its codec)")
            yield container
    except av.FFmpegError as error:
        raise AudioError(f"{name}: cannot be decoded as audio ({error.strerror})") from error


def _stated_s(container: av.container.InputContainer) -> float | None:
    """Return the seconds that the header states for the audio stream; None if it states none for this stream alone."""
    if not set(container.format.name.split(",")) & set(_STATING):
        return None
    stream = container.streams.audio[0]
    pcm = stream.codec_context.name.startswith("pcm_")  # whose frames are of one sample each
    if stream.frames and (container.format.name == "avi" or (container.format.name == "caf" and pcm)):
        return _seconds(stream.frames, stream)  # the duration is that of the bytes that are there
    if stream.duration is not None:
        return _seconds(stream.duration, stream)
    alone = len(container.streams) == 1
    return container.duration / av.time_base if alone and container.duration else None


def _seconds(ticks: int, stream: av.AudioStream) -> float:
    return float(ticks * (stream.time_base or 0))
