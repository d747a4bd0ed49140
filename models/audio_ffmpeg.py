"""Decode what libsndfile does not know (AAC in MP4, WebM, WMA, ...) by FFmpeg's libraries, in the package PyAV."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from .audio_bytes import Content
from .audio_containers import first_end
from .audio_headers import ROUNDED_BYTES, missing_bytes
from .audio_notes import note
from .audio_streams import OPUS_HZ, Part, after_id3, bytes_after, ogg_parts
from .errors import AudioError

# Files alone: playlists and other texts name further files and addresses, which FFmpeg would open.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tak,tta,w64,wav,webm,wv"
)
_STATING = ("asf", "avi", "caf", "flv", "matroska", "mov")  # whose length stands in a header; of others it is a guess
_TIMED = ("flv", "matroska", "mpeg", "mpegts")  # whose packets have times that say where one is missing
# Whose headers may count somewhat more than there is, or not say how much: a short last packet is whole there.
_ROUNDED = ("caf", "wav", "w64")
_CHECKSUMS = ("ac3", "eac3", "flac", "tak", "tta", "wavpack")  # codecs that have them in each frame
_TOLERANCE_S = 0.1  # the delay of a codec
_TOLERANCE = 0.01
_AVI_UNSET = 2**30  # samples, which FFmpeg writes to a pipe
_GAP_S = 0.015  # between the times of packets: less than a frame of most codecs
_RESTART_S = 0.25  # by which times jump where others begin
_DAMAGED = "its content is damaged"
_REASONS: dict[type[Exception], str] = {  # in place of FFmpeg's words, where these say nothing of a file
    av.error.EOFError: "it ends too early",
    av.error.PatchWelcomeError: "FFmpeg does not know all that is in it",
    av.error.PermissionError: _DAMAGED,
    av.error.BlockingIOError: _DAMAGED,
    av.error.OSError: _DAMAGED,
    av.error.UndefinedError: _DAMAGED,
}


def decode(
    data: Content, name: str, max_duration_s: float | None = None
) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Decode the first audio stream of a file, block by block, and of the files that were joined to one of Ogg.

    Args:
        data: the bytes of the file.
        name: of the file in error messages.
        max_duration_s: decode at most this much from the beginning, in seconds.

    Yields:
        samples, [time, channels], and their rate in Hz.

    Raises:
        AudioError: if the file holds no sound, is truncated or damaged, changes its sample rate or channels, was
            joined to another, or cannot be decoded.
    """
    rate, channels, wanted, found = 0, 0, sys.maxsize, 0
    for part in _parts(data, name):
        before = found
        with _opened(data, part, name) as container:
            for frame, samples in _frames(container, name):
                if not rate:
                    rate, channels = frame.sample_rate, len(samples)
                    wanted = wanted if max_duration_s is None else round(max_duration_s * rate)
                if (frame.sample_rate, len(samples)) != (rate, channels):
                    raise AudioError(
                        f"{name}: changes its sample rate or channels after {found / rate:.1f} s; split it there"
                    )
                yield samples[:, : wanted - found].T, rate
                found += samples.shape[1]
                if found >= wanted:
                    break
            decoded_s = (found - before) / rate if rate else 0.0
            _refuse_lost(part, container, decoded_s if found >= wanted else sys.maxsize, name)
            if found >= wanted:
                return
            if not part.ended:
                raise AudioError(f"{name}: is truncated: its last page is not marked as the end")
            _refuse_short(container, decoded_s, name)
    if _is_ogg(data) and (rest := bytes_after(data, part.end)):
        note(f"{name}: {rest:,} bytes after the sound are no sound and are left out")
    missing = missing_bytes(data)
    if missing > ROUNDED_BYTES:
        raise AudioError(f"{name}: is truncated: {len(data):,} bytes, the header says {len(data) + missing:,}")


def duration(data: Content, name: str) -> float:
    """Return the length in seconds of the first audio stream: as the header states, else by the times of its packets.

    Raises:
        AudioError: if the file holds no sound, lacks pages, was joined to another or cannot be read.
    """
    seconds = 0.0
    for part in _parts(data, name):
        with _opened(data, part, name) as container:
            _refuse_lost(part, container, sys.maxsize, name)
            seconds += _stated_s(container) or _packets_s(container)
    return seconds


def _parts(data: Content, name: str) -> list[Part]:
    """Return the files that were joined to one of Ogg, or the one file that others are, without what is behind it."""
    if _is_ogg(data):
        return ogg_parts(data)
    end = first_end(data)
    if end.joined:
        raise AudioError(f"{name}: another file was joined to it after byte {end.at:,}; split it there")
    if end.strange:
        raise AudioError(f"{name}: is truncated or damaged: no sound follows byte {end.at:,}, expected more or the end")
    return [Part(0, end.at)]


def _is_ogg(data: Content) -> bool:
    start = after_id3(data, 0)
    return data[start : start + 4] == b"OggS"


def _frames(
    container: av.container.InputContainer, name: str
) -> Iterator[tuple[av.AudioFrame, npt.NDArray[np.float32]]]:
    """Yield what is decoded, with its samples, [channels, time]."""
    stream, convert, seconds, times = container.streams.audio[0], _Converter(), 0.0, _Times()
    whole = whole_packet = True
    try:
        for packet in container.demux(stream):
            if packet.size and not _is_of(container, _ROUNDED):
                whole_packet = not packet.is_corrupt
            for frame in packet.decode():
                if not whole:
                    raise AudioError(f"{name}: is damaged: its sound before {seconds:.1f} s is not whole")
                whole = not frame.is_corrupt
                seconds += frame.samples / frame.sample_rate
                times.add(frame)
                yield from convert(frame)
    except av.FFmpegError as error:
        if isinstance(error, av.error.PatchWelcomeError):
            raise
        raise AudioError(
            f"{name}: is truncated or damaged: what follows {seconds:.1f} s cannot be decoded ({_reason(error)})"
        ) from error
    if not (whole and whole_packet):
        raise AudioError(f"{name}: is truncated: its last frame, at {seconds:.1f} s, is not whole")
    if times.gap_at is not None and times.missing_s > _GAP_S and _is_of(container, _TIMED):
        note(
            f"{name}: by its times, {times.missing_s:.2f} s of sound are missing, the first after "
            f"{times.gap_at:.1f} s; what is there is read on"
        )


class _Converter:
    """Turns frames into floats, one resampler for all of one rate and layout.

    They have all channels in one plane: of more than eight planes, PyAV reads memory that is none of theirs.
    """

    def __init__(self) -> None:
        self._kind: tuple[int, str] | None = None
        self._resampler = av.AudioResampler(format="flt")

    def __call__(self, frame: av.AudioFrame) -> Iterator[tuple[av.AudioFrame, npt.NDArray[np.float32]]]:
        """Yield the frame, with its samples, [channels, time]."""
        kind = frame.sample_rate, frame.layout.name
        if kind != self._kind:
            self._kind, self._resampler = kind, av.AudioResampler(format="flt")
        for converted in self._resampler.resample(frame):
            samples = converted.to_ndarray().reshape(-1, len(converted.layout.channels)).T
            yield converted, samples.astype(np.float32, copy=False)


class _Times:
    """What the times of frames say is missing between them."""

    def __init__(self) -> None:
        self.missing_s = 0.0
        self.gap_at: float | None = None  # seconds of sound before the first gap
        self._end: float | None = None
        self._seconds = 0.0

    def add(self, frame: av.AudioFrame) -> None:
        """Note a further frame."""
        if frame.time is None:
            return
        jump = frame.time - self._end if self._end is not None else 0.0
        if jump > -_RESTART_S:
            self.missing_s += jump
        if jump > _GAP_S and self.gap_at is None:
            self.gap_at = self._seconds
        length = frame.samples / frame.sample_rate
        self._end, self._seconds = frame.time + length, self._seconds + length


def _refuse_lost(part: Part, container: av.container.InputContainer, wanted_s: float, name: str) -> None:
    """Refuse Ogg in which pages are missing, or damaged, among those that hold its first seconds."""
    if part.lost_after is None:
        return
    codec = container.streams.audio[0].codec_context
    lost_s = part.lost_after / (OPUS_HZ if codec.name.endswith("opus") else codec.sample_rate)
    if lost_s < wanted_s:
        raise AudioError(f"{name}: is damaged: pages are missing or damaged after {lost_s:.1f} s")


def _refuse_short(container: av.container.InputContainer, found_s: float, name: str) -> None:
    stated_s = _stated_s(container)
    if stated_s and found_s and found_s < stated_s * (1 - _TOLERANCE) - _TOLERANCE_S:
        raise AudioError(f"{name}: is truncated: {found_s:.1f} s of sound, the header says {stated_s:.1f} s")


class _Source:
    """Some bytes of a file, for FFmpeg, which damaged headers send to before its beginning or behind its end."""

    def __init__(self, data: Content, part: Part) -> None:
        self._data, self._start, self._size, self._at = data, part.start, part.end - part.start, 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, no more than asked for."""
        end = self._size if size < 0 else min(self._size, self._at + size)
        found = self._data[self._start + self._at : self._start + end] if end > self._at else b""
        self._at += len(found)
        return found

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place, and return it, or -1 if there is none: PyAV would print what is raised."""
        at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset
        if at < 0:
            return -1
        self._at = at
        return at


@contextmanager
def _opened(data: Content, part: Part, name: str) -> Iterator[av.container.InputContainer]:
    """Yield a file that holds an audio stream."""
    try:
        source: Any = _Source(data, part)
        with av.open(source, "r", options={"format_whitelist": _CONTAINERS}, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: cannot be decoded as audio (it holds no sound)")
            codec = container.streams.audio[0].codec_context
            if codec is None:
                raise AudioError(f"{name}: cannot be decoded as audio (FFmpeg does not know its codec)")
            _use_plain_layout(codec)
            if codec.name in _CHECKSUMS:
                codec.options = {"err_detect": "crccheck+explode"}
            yield container
    except av.FFmpegError as error:
        raise AudioError(f"{name}: cannot be decoded as audio ({_reason(error)})") from error


def _use_plain_layout(codec: av.AudioCodecContext) -> None:
    """Let channels whose places the file lists, as MOV does, be of no known places, which averaging needs not.

    PyAV frees such a list twice with every frame, which ends the process. It frees the codec's as soon as the layout
    that is read here is gone, so that another must take its place at once.
    """
    layout = codec.layout
    name, channels = layout.name, layout.nb_channels
    del layout
    if channels:
        codec.layout = f"{channels} channels" if "(" in name.partition("channels")[2] else name


def _reason(error: av.FFmpegError) -> str:
    return _REASONS.get(type(error)) or error.strerror or type(error).__name__


def _stated_s(container: av.container.InputContainer) -> float | None:
    """Return the seconds that the header states for the audio stream; None if it states none for this stream alone."""
    if not _is_of(container, _STATING):
        return None
    stream = container.streams.audio[0]
    pcm = stream.codec_context.name.startswith("pcm_")  # whose frames are of one sample each
    if container.format.name == "avi" and stream.frames == _AVI_UNSET:
        return None
    if stream.frames and (container.format.name == "avi" or (container.format.name == "caf" and pcm)):
        return _seconds(stream.frames, stream)  # the duration is that of the bytes that are there
    if stream.duration is not None:  # which the others do not state: FFmpeg guesses it by the bit rate
        return _seconds(stream.duration, stream) if _is_of(container, ("avi", "caf", "mov")) else None
    if len(container.streams) > 1 or not container.duration:
        return None
    seconds, begins = (ticks / av.time_base for ticks in (container.duration, container.start_time or 0))
    late = begins > _RESTART_S and _is_of(container, ("asf", "matroska"))  # whose headers may state when it ends
    return seconds - begins if late and seconds > begins else float(seconds)


def _packets_s(container: av.container.InputContainer) -> float:
    """Return the seconds of the audio stream by the times of its packets, without what is missing between them."""
    stream = container.streams.audio[0]
    ticks, start, end = 0, None, 0
    for packet in container.demux(stream):
        if packet.pts is None:
            continue
        if start is None or abs(_seconds(packet.pts - end, stream)) > _RESTART_S:
            ticks, start = ticks + end - (start or 0), packet.pts
        end = packet.pts + (packet.duration or 0)
    return _seconds(ticks + end - (start or 0), stream)


def _is_of(container: av.container.InputContainer, kinds: tuple[str, ...]) -> bool:
    return not {*kinds}.isdisjoint(container.format.name.split(","))


def _seconds(ticks: int, stream: av.AudioStream) -> float:
    return float(ticks * (stream.time_base or 0))
