"""Decode one audio file to samples (mono, float32, at one rate), or say in plain words why that fails."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from .errors import InputError

MAX_CLIPPED = 0.25
MAX_OFFSET = 0.5
_MENDED_SIZE = re.compile(r"(?:data|SSND) : (?P<says>\d+) \(should be (?P<should>\d+)\)")
_SIZE_UNKNOWN = 2**32 - 2**16
_FRAMES_TOLERANCE = 0.01  # MP3 headers may or may not count the delay of the codec


class AudioError(InputError, ValueError):
    """An audio file cannot be used; the message names the file and says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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
        source: any file that libsndfile reads (WAV, FLAC, OGG, MP3, ...): its path, or its bytes as an open file.
        sample_rate: of the result, in Hz.
        max_duration_s: read at most this much from the beginning, in seconds.
        strict: also refuse what can be heard but should not be learned from: a quarter of the samples clipped, or a DC
            offset of half of full scale.
        name: of the file in error messages; its path when left out.

    Returns:
        Samples, [time], float32, contiguous.

    Raises:
        AudioError: if the file is missing, cannot be decoded, is truncated, holds no samples, holds NaN or infinity, or
            is digital silence (in the part that was read).
    """
    name = name or str(source)
    samples, source_rate = _decode(source, name, max_duration_s)
    if not len(samples):
        raise AudioError(f"{name}: holds no samples")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds NaN or infinite samples")
    mono = samples.mean(axis=1)
    if not np.ptp(mono):
        raise AudioError(f"{name}: is digital silence (every sample is {mono[0]:g})")
    if strict:
        _refuse_damaged(name, samples)
    if source_rate != sample_rate:
        mono = soxr.resample(mono, source_rate, sample_rate, quality="HQ")
        if not len(mono):
            raise AudioError(f"{name}: too short to be resampled from {source_rate} to {sample_rate} Hz")
    return np.ascontiguousarray(mono, dtype=np.float32)


def read_duration(source: str | Path | BinaryIO, name: str | None = None) -> float:
    """Return the length in seconds that the file's header states, without decoding it.

    Raises:
        AudioError: if the file is missing or its header cannot be read.
    """
    name = name or str(source)
    try:
        with soundfile.SoundFile(_checked(source, name)) as file:
            duration_s: float = file.frames / file.samplerate
            return duration_s
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{name}: cannot be decoded as audio ({error})") from error


def _checked(source: str | Path | BinaryIO, name: str) -> bytes | BinaryIO:
    """Return the source, after refusing a path that leads to no file."""
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if not path.exists():
        raise AudioError(f"{name}: no such file")
    if not path.is_file():
        raise AudioError(f"{name}: is not a file")
    return os.fsencode(path)  # file systems allow names that are not Unicode text


def _decode(
    source: str | Path | BinaryIO, name: str, max_duration_s: float | None
) -> tuple[npt.NDArray[np.float32], int]:
    """Return samples, [time, channels], and their rate in Hz."""
    try:
        with soundfile.SoundFile(_checked(source, name)) as file:
            wanted = file.frames if max_duration_s is None else round(max_duration_s * file.samplerate)
            samples = file.read(wanted, dtype="float32", always_2d=True)
            _refuse_truncated(name, file, len(samples), min(wanted, file.frames))
            return samples, file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{name}: cannot be decoded as audio ({error})") from error


def _refuse_truncated(name: str, file: soundfile.SoundFile, found: int, wanted: int) -> None:
    """Refuse a file that ends before its header says; libsndfile repairs WAV and AIFF headers and logs it."""
    mended = _MENDED_SIZE.search(file.extra_info)
    # A recorder that writes to a pipe cannot know the size and writes the largest there is: nothing is missing then.
    if mended and int(mended["should"]) < int(mended["says"]) < _SIZE_UNKNOWN:
        raise AudioError(f"{name}: is truncated: {mended['should']} bytes of sound, the header says {mended['says']}")
    if found < wanted * (1 - _FRAMES_TOLERANCE):
        raise AudioError(f"{name}: is truncated: {found} samples of sound, the header says {wanted} or more")


def _refuse_damaged(name: str, samples: npt.NDArray[np.float32]) -> None:
    """Refuse heavy clipping and a large DC offset in samples [time, channels] as they were decoded."""
    peak = float(np.abs(samples).max())
    clipped = float((np.abs(samples) >= 0.999 * peak).mean())
    if peak >= 0.99 and clipped > MAX_CLIPPED:
        raise AudioError(f"{name}: is clipped: {clipped:.0%} of the samples are at full scale")
    offset = float(samples.mean())
    if abs(offset) > MAX_OFFSET:
        raise AudioError(f"{name}: has a DC offset of {offset:.2f} of full scale")
