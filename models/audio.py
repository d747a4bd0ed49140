"""Decode one audio file to samples (mono, float32, at one rate), or say in plain words why that fails."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import starmap
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from .audio_streams import Content, Part, bytes_after, counts_frames, flac_parts, mpeg_stream, ogg_parts, sized_wav
from .errors import AudioError
from .files import refuse_stand_in

__all__ = ["AUDIO_SUFFIXES", "AudioError", "Block", "audio_blocks", "load_audio", "read_duration", "to_int16"]

logger = logging.getLogger(__name__)

_LIBSNDFILE = (
    "8svx aif aifc aiff au avr bwf caf flac htk ircam mp1 mp2 mp3 mpa mpga nist oga ogg ogx opus paf pvf rf64 sds sf "
    "snd sph svx voc w64 wav wave wve xi"
)
_FFMPEG = (  # .ts is left out: it is TypeScript more often than sound
    "3g2 3gp 3gpp aac ac3 adts amr ape asf avi awb dts eac3 ec3 f4v flv m2ts m4a m4b m4r m4v mk3d mka mkv mov mp4 mpeg "
    "mpg mts ogv qt spx tak tta vob weba webm wma wmv wv"
)
AUDIO_SUFFIXES = frozenset(f".{suffix}" for suffix in f"{_LIBSNDFILE} {_FFMPEG}".split())  # of files that hold sound
OPUS_HZ = 48_000  # of positions in Opus, whatever the rate of its sound
MAX_CLIPPED = 0.25
MAX_OFFSET = 0.5
MAX_PEAK = 100.0  # of full scale, in files of floats: sound is louder than 1 at times, never 40 dB
_EXTRA = "for formats that libsndfile does not know, such as M4A or WebM, install the extra `formats`: pip install av"
_BEGINNING = 2**20  # bytes in which the first frame of MP3 is looked for
_BLOCK = 2**14  # numbers that are decoded at once: all of them are lost where one cannot be
_UNCOUNTED = 2**62  # a number of samples beyond which libsndfile knows none
_MENDED_SIZE = re.compile(r"(?:data|SSND|Data Size  |riff|Riff size) : (?P<says>\d+) \(should be (?P<should>\d+)\)")
_HEADER_BYTES = 512  # by which a size is too large that counts the header, or a last block that is not full
_FRAMES_TOLERANCE = 0.01  # MP3 headers may or may not count the delay of the codec
# What decoders and their bindings raise for some file, beside their own errors, which are some of these.
_RAISED = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


class Block(NamedTuple):
    """A stretch of a file's sound."""

    samples: npt.NDArray[np.float32]  # [time, channels]
    rate: int  # in Hz


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Round samples in -1..1 to 16-bit integers; what is louder is clipped."""
    return np.clip(np.round(waveform * 32_768), -32_768, 32_767).astype(np.int16)


def load_audio(
    source: str | Path | BinaryIO,
    sample_rate: int,
    max_duration_s: float | None = None,
    strict: bool = False,
    name: str | None = None,
) -> npt.NDArray[np.float32]:
    """Read a file, mix it down by the mean of its channels and resample it.

    Args:
        source: a file that libsndfile reads (WAV, FLAC, OGG, MP3, ...), or FFmpeg where PyAV is installed (M4A, WebM,
            ...): its path, or its bytes as an open file.
        sample_rate: of the result, in Hz.
        max_duration_s: read at most this much from the beginning, in seconds.
        strict: also refuse what can be heard but should not be learned from: a quarter of the samples clipped, or a DC
            offset of half of full scale.
        name: of the file in error messages; its path when left out.

    Returns:
        Samples, [time], float32, contiguous.

    Raises:
        AudioError: if the file is missing, cannot be decoded, is truncated, changes its sample rate or channels,
            holds no samples, holds NaN, infinity or peaks far beyond full scale, or is digital silence (in the part
            that was read).
    """
    name = name or str(source)
    blocks = list(audio_blocks(source, name, max_duration_s))
    samples, source_rate = np.concatenate([block.samples for block in blocks]), blocks[0].rate
    mono = samples.mean(axis=1)
    if not np.ptp(mono):
        raise AudioError(f"{name}: is digital silence (every sample is {mono[0]:g})")
    if strict:
        _refuse_damaged(name, samples)
    if source_rate != sample_rate:
        with _explained(name):
            mono = soxr.resample(mono, source_rate, sample_rate, quality="HQ")
        if not len(mono):
            raise AudioError(f"{name}: too short to be resampled from {source_rate} to {sample_rate} Hz")
    return np.ascontiguousarray(mono, dtype=np.float32)


def read_duration(source: str | Path | BinaryIO, name: str | None = None) -> float:
    """Return the length in seconds that the file's header states, without decoding it.

    MP3 whose header does not count its frames is read for their headers, FLAC whose header does not count its samples
    (as encoders write that do not know them yet) is decoded, as far as it can be. Of files that were joined, the first
    is measured.

    Raises:
        AudioError: if the file is missing or its header cannot be read.
    """
    name = name or str(source)
    checked = _checked(source, name)
    with _explained(name):
        try:
            file = soundfile.SoundFile(checked)
        except soundfile.LibsndfileError as error:
            with _binary(checked) as stream:
                return float(_ffmpeg(name, checked, error).duration(stream, name))
        with file:
            trusted = "MPEG" in file.subtype and counts_frames(_contents(checked)[:_BEGINNING])
            mended = None if trusted else _mended(file, checked, name, sys.maxsize)
            with soundfile.SoundFile(io.BytesIO(mended)) if mended else file as right:
                counted = right.frames <= _UNCOUNTED
                frames = right.frames if counted else _number_of_samples(source, name)
                return frames / float(right.samplerate)


def _number_of_samples(source: str | Path | BinaryIO, name: str) -> int:
    """Return how many samples can be decoded before the end, or before what cannot be."""
    number = 0
    try:
        for block in audio_blocks(source, name):
            number += len(block.samples)
    except AudioError:
        if not number:
            raise
    return number


def _checked(source: str | Path | BinaryIO, name: str) -> bytes | BinaryIO:
    """Return the source, after refusing a path that leads to no file."""
    if not isinstance(source, str | Path):
        source.seek(0)
        return source
    path = Path(source)
    if not path.exists():
        raise AudioError(f"{name}: no such file")
    if not path.is_file():
        raise AudioError(f"{name}: is not a file")
    return os.fsencode(path)  # file systems allow names that are not Unicode text


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Raise as AudioError whatever a decoder makes of what is no audio."""
    try:
        yield
    except AudioError:
        raise
    except _RAISED as error:
        raise AudioError(f"{name}: cannot be decoded as audio ({str(error) or type(error).__name__})") from error


@contextmanager
def _binary(source: bytes | BinaryIO) -> Iterator[BinaryIO]:
    """Yield the source as an open file, at its beginning."""
    if isinstance(source, bytes):
        with open(source, "rb") as file:
            yield file
    else:
        source.seek(0)
        yield source


def _contents(source: bytes | BinaryIO) -> Content:
    """Return all bytes of the source, a file's as mapped memory; a decoder that has it open finds it where it was."""
    if isinstance(source, bytes):
        with _binary(source) as file:
            return mmap(file.fileno(), 0, access=ACCESS_READ)
    at = source.tell()
    source.seek(0)
    data = source.read()
    source.seek(at)
    return data


@lru_cache(maxsize=4096)
def _note(text: str) -> None:
    """Log what is odd in a file that can be used, once: a file is read for each sample rate."""
    logger.warning("%s", text)


class _Sound(soundfile.SoundFile):
    """A file that is read from its beginning on.

    soundfile seeks after each read of a file that it can seek in: MP3 has a click there, and FLAC of unknown length
    fails at its end as it does at damage.
    """

    def seekable(self) -> bool:
        """Return that it must not be sought in."""
        return False


# --- decoding --------------------------------------------------------------------------------------------------------


def audio_blocks(
    source: str | Path | BinaryIO, name: str | None = None, max_duration_s: float | None = None
) -> Iterator[Block]:
    """Decode a file block by block, so that one of any length takes no more memory than a short one.

    Args:
        source, max_duration_s, name: as of `load_audio`.

    Yields:
        at least one block; all have the same rate and number of channels.

    Raises:
        AudioError: as of `load_audio` where the file cannot be decoded, or its samples cannot be sound: what is wrong
            with its end is found there.
    """
    name = name or str(source)
    found = 0
    for block in _decoded(source, name, max_duration_s):
        if len(block.samples):
            _refuse_numbers(name, block.samples)
            found += 1
            yield block
    if not found:
        raise AudioError(f"{name}: holds no samples")


def _decoded(source: str | Path | BinaryIO, name: str, max_duration_s: float | None) -> Iterator[Block]:
    checked = _checked(source, name)
    with _explained(name):
        try:
            file = _Sound(checked)
        except soundfile.LibsndfileError as error:
            with _binary(checked) as stream:
                yield from starmap(Block, _ffmpeg(name, checked, error).decode(stream, name, max_duration_s))
            return
        with file:
            wanted = sys.maxsize if max_duration_s is None else round(max_duration_s * file.samplerate)
            mended = _mended(file, checked, name, wanted)
            if mended is None:
                found = yield from _read(file, name, wanted)
            else:
                with _Sound(io.BytesIO(mended)) as whole:
                    found = yield from _read(whole, name, wanted)
            if found < wanted and file.format in ("OGG", "FLAC"):
                yield from _read_on(file, _contents(checked), name, wanted - found)
            elif file.format == "OGG":
                _refuse_lost(file, ogg_parts(_contents(checked), wanted * _positions(file))[0], name, wanted)
            _refuse_cut_off(name, file)  # after what there is, which readers of windows keep


def _mended(file: soundfile.SoundFile, source: bytes | BinaryIO, name: str, wanted: int) -> bytes | None:
    """Return the file with a header that is right, or None if it is."""
    if "MPEG" in file.subtype:
        data = _contents(source)
        found = mpeg_stream(data, name, file.frames, wanted)
        if found.between and found.counted is not None:
            _note(f"{name}: {found.between:,} bytes within the sound are no sound and are left out")
        if file.format == "MP3" and found.samples < wanted:
            _note_rest(name, bytes_after(data, found.end))
        return found.counted
    if file.format in ("OGG", "FLAC") and file.frames > _UNCOUNTED:
        data = _contents(source)
        return data[: _parts(file, data)[0].end]  # without a second, which would be taken for more of this one
    if file.format in ("WAV", "WAVEX") and not file.frames:
        mended = sized_wav(_contents(source))
        if mended:
            _note(f"{name}: its header says 0 bytes of sound; what follows is read to the end")
        return mended
    return None


def _read(file: _Sound, name: str, wanted: int) -> Generator[Block, None, int]:
    """Yield the first samples, up to a number, in blocks until nothing comes: headers may state more than there is.

    Returns:
        how many there were.
    """
    stated, found, most = min(wanted, file.frames), 0, max(1, _BLOCK // file.channels)
    while found < stated:
        try:
            samples = file.read(min(stated - found, most), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{name}: is truncated or damaged ({error})") from error
        if not len(samples):
            break
        found += len(samples)
        yield Block(samples, file.samplerate)
    if file.frames <= _UNCOUNTED and found < stated * (1 - _FRAMES_TOLERANCE):
        raise AudioError(f"{name}: is truncated: {found} samples of sound, the header says {stated} or more")
    return found


def _read_on(file: soundfile.SoundFile, data: Content, name: str, wanted: int) -> Iterator[Block]:
    """Yield up to `wanted` samples of the streams that were joined to the first of a file, which has been read."""
    parts = _parts(file, data)
    for number, part in enumerate(parts):
        if number:
            with _Sound(io.BytesIO(data[part.start : part.end])) as after:
                if (after.samplerate, after.channels) != (file.samplerate, file.channels):
                    raise AudioError(
                        f"{name}: changes its sample rate or channels after byte {part.start:,}; split it there"
                    )
                wanted -= yield from _read(after, name, wanted)
        if wanted <= 0:
            break
        _refuse_lost(file, part, name)
        if not part.ended:
            raise AudioError(f"{name}: is truncated: its last page is not marked as the end")
    else:
        _note_rest(name, bytes_after(data, parts[-1].end))


def _parts(file: soundfile.SoundFile, data: Content) -> list[Part]:
    """Return the files that were joined to one of Ogg or FLAC."""
    return ogg_parts(data) if file.format == "OGG" else flac_parts(data)


def _refuse_lost(file: soundfile.SoundFile, part: Part, name: str, wanted: int = sys.maxsize) -> None:
    """Refuse Ogg in which pages are missing, or damaged, among those that hold its first samples up to a number."""
    if part.lost_after is not None:
        sample = part.lost_after / _positions(file)
        if sample < wanted:
            raise AudioError(f"{name}: is damaged: pages are missing or damaged after {sample / file.samplerate:.1f} s")


def _positions(file: soundfile.SoundFile) -> float:
    """Return how much Ogg's count of positions grows with each sample."""
    return OPUS_HZ / file.samplerate if file.subtype == "OPUS" else 1.0


def _note_rest(name: str, number: int) -> None:
    if number:
        _note(f"{name}: {number:,} bytes after the sound are no sound and are left out")


def _refuse_cut_off(name: str, file: soundfile.SoundFile) -> None:
    """Refuse a file that ends before its header says; libsndfile repairs such headers and logs it."""
    mended = _MENDED_SIZE.search(file.extra_info)
    if not mended:
        return
    says, should = int(mended["says"]), int(mended["should"])
    # A recorder that writes to a pipe cannot know the size and writes the largest there is, of 31 or 32 bits.
    if says > should + _HEADER_BYTES and says % 2**31 < 2**31 - 2**16:
        raise AudioError(f"{name}: is truncated: {should} bytes of sound, the header says {says}")


def _ffmpeg(name: str, source: bytes | BinaryIO, error: Exception) -> ModuleType:
    """Return the module that decodes what libsndfile does not know.

    Raises:
        AudioError: it is no file of sound at all, or the extra is not installed; `error` is what libsndfile said.
    """
    if isinstance(source, bytes):
        refuse_stand_in(Path(os.fsdecode(source)), "audio", AudioError, name)
    try:
        from . import audio_ffmpeg
    except ImportError as missing:
        raise AudioError(f"{name}: cannot be decoded as audio ({error}); {_EXTRA}") from missing
    return audio_ffmpeg


def _refuse_numbers(name: str, samples: npt.NDArray[np.float32]) -> None:
    """Refuse samples that are no sound: not finite, or of another scale, such as that of 16-bit integers."""
    peak = float(np.abs(samples).max())
    if not np.isfinite(peak):
        raise AudioError(f"{name}: holds NaN or infinite samples")
    if peak > MAX_PEAK:
        raise AudioError(f"{name}: has a peak of {peak:.6g} times full scale, expected floats from -1 to 1; rescale it")


def _refuse_damaged(name: str, samples: npt.NDArray[np.float32]) -> None:
    """Refuse heavy clipping and a large DC offset in samples [time, channels] as they were decoded."""
    peak = float(np.abs(samples).max())
    clipped = float((np.abs(samples) >= 0.999 * peak).mean())
    if peak >= 0.99 and clipped > MAX_CLIPPED:
        raise AudioError(f"{name}: is clipped: {clipped:.0%} of the samples are at full scale")
    offset = float(samples.mean())
    if abs(offset) > MAX_OFFSET:
        raise AudioError(f"{name}: has a DC offset of {offset:.2f} of full scale")
