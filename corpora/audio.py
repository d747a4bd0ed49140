"""Audio files to samples: mono, float32, at one rate, or a reason in plain words."""

from __future__ import annotations

import bisect
import functools
import io
import itertools
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import soxr

from corpora.mixing import Mixture

_PARQUET_CLIP = re.compile(r"(?P<file>.+\.parquet)#(?P<row>\d+)(?::(?P<column>.+))?", re.DOTALL)
_AUDIO_COLUMN = "audio"
MAX_CLIPPED = 0.25
MAX_OFFSET = 0.5
_MENDED_SIZE = re.compile(r"(?:data|SSND) : (?P<says>\d+) \(should be (?P<should>\d+)\)")
_SIZE_UNKNOWN = 2**32 - 2**16
_FRAMES_TOLERANCE = 0.01  # MP3 headers count the codec's own delay or not


class AudioError(ValueError):
    """An audio file cannot be used; the message names the file and says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def load_audio(
    path: str | Path, sample_rate: int, max_duration_s: float | None = None, strict: bool = False
) -> npt.NDArray[np.float32]:
    """Read a file, mix it down by the mean of its channels and resample it.

    Args:
        path: any file that libsndfile reads (WAV, FLAC, OGG, MP3, ...), or such a file inside a Parquet file
            (`parquet_clip`), or two that sound together (`corpora.mixing.Mixture.path`).
        sample_rate: of the result, in Hz.
        max_duration_s: read no more than this much from the beginning, in seconds.
        strict: refuse, too, what can be heard but should not be learned from: a quarter of the samples clipped, or a DC
            offset of half of full scale.

    Returns:
        Samples, [time], float32, contiguous.

    Raises:
        AudioError: if the file is missing, cannot be decoded, is truncated, holds no samples, holds NaN or infinity, or
            is digital silence (in the part that was read).
    """
    mixture = Mixture.of_path(str(path))
    if mixture:
        first, second = (load_audio(part, sample_rate, strict=strict) for part in (mixture.first, mixture.second))
        mixed = mixture.mix(first, second)
        return mixed if max_duration_s is None else mixed[: round(max_duration_s * sample_rate)]
    stereo, source_rate = _decode(path, max_duration_s)
    if not len(stereo):
        raise AudioError(f"{path}: holds no samples")
    if not np.isfinite(stereo).all():
        raise AudioError(f"{path}: holds NaN or infinite samples")
    mono = stereo.mean(axis=1)
    if not np.ptp(mono):
        raise AudioError(f"{path}: is digital silence (every sample is {mono[0]:g})")
    if strict:
        _refuse_damaged(path, stereo)
    if source_rate != sample_rate:
        mono = soxr.resample(mono, source_rate, sample_rate, quality="HQ")
        if not len(mono):
            raise AudioError(f"{path}: too short to be resampled from {source_rate} to {sample_rate} Hz")
    return np.ascontiguousarray(mono, dtype=np.float32)


def read_duration(path: str | Path) -> float:
    """Length in seconds as the file's header says, without decoding it.

    Raises:
        AudioError: if the file is missing or its header cannot be read.
    """
    mixture = Mixture.of_path(str(path))
    if mixture:
        return max(read_duration(mixture.first), read_duration(mixture.second))
    try:
        with soundfile.SoundFile(_source(path)) as file:
            return file.frames / file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{path}: cannot be decoded as audio ({error})") from error


def files_of(path: str) -> list[Path]:
    """The files on disk that a clip is made of: itself, a Parquet file, or the two of a mixture."""
    mixture = Mixture.of_path(path)
    if mixture:
        return [*files_of(mixture.first), *files_of(mixture.second)]
    inside = _PARQUET_CLIP.fullmatch(path)
    return [Path(inside["file"] if inside else path)]


def _decode(path: str | Path, max_duration_s: float | None) -> tuple[npt.NDArray[np.float32], int]:
    """Samples, [time, channels], and their rate in Hz."""
    try:
        with soundfile.SoundFile(_source(path)) as file:
            wanted = file.frames if max_duration_s is None else round(max_duration_s * file.samplerate)
            samples = file.read(wanted, dtype="float32", always_2d=True)
            _refuse_truncated(path, file, len(samples), min(wanted, file.frames))
            return samples, file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{path}: cannot be decoded as audio ({error})") from error


def _refuse_truncated(path: str | Path, file: soundfile.SoundFile, found: int, wanted: int) -> None:
    """A file that ends before its header says. libsndfile mends WAV and AIFF headers and tells of it in its log."""
    mended = _MENDED_SIZE.search(file.extra_info)
    # A recorder that writes to a pipe cannot know the size and writes the largest there is: nothing is missing then.
    if mended and int(mended["should"]) < int(mended["says"]) < _SIZE_UNKNOWN:
        raise AudioError(f"{path}: is truncated: {mended['should']} bytes of sound, the header says {mended['says']}")
    if found < wanted * (1 - _FRAMES_TOLERANCE):
        raise AudioError(f"{path}: is truncated: {found} samples of sound, the header says {wanted} or more")


def _refuse_damaged(path: str | Path, samples: npt.NDArray[np.float32]) -> None:
    """Heavy clipping or a large DC offset in samples [time, channels] as they were decoded."""
    peak = float(np.abs(samples).max())
    clipped = float((np.abs(samples) >= 0.999 * peak).mean())
    if peak >= 0.99 and clipped > MAX_CLIPPED:
        raise AudioError(f"{path}: is clipped: {clipped:.0%} of the samples are at full scale")
    offset = float(samples.mean())
    if abs(offset) > MAX_OFFSET:
        raise AudioError(f"{path}: has a DC offset of {offset:.2f} of full scale")


def _source(path: str | Path) -> Path | io.BytesIO:
    """What libsndfile is to open: the file itself, or the bytes of a Parquet row."""
    inside = _PARQUET_CLIP.fullmatch(str(path))
    file = Path(inside["file"] if inside else path)
    if not file.exists():
        raise AudioError(f"{path}: no such file")
    if not file.is_file():
        raise AudioError(f"{path}: is not a file")
    return io.BytesIO(_row_bytes(file, int(inside["row"]), inside["column"] or _AUDIO_COLUMN)) if inside else file


# --- audio inside Parquet files ------------------------------------------------------------------------------------


def parquet_clip(file: Path, row: int, column: str = _AUDIO_COLUMN) -> str:
    """The path of the audio in a row of a Parquet file, counted from 0: `<file>.parquet#<row>`.

    A column (struct<bytes, path>) of another name than audio is part of it: `<file>.parquet#<row>:<column>`.
    """
    return f"{file}#{row}" if column == _AUDIO_COLUMN else f"{file}#{row}:{column}"


def _row_bytes(file: Path, row: int, column: str) -> bytes:
    try:
        changed = os.stat(file).st_mtime_ns
        ends = _row_group_ends(file, changed)
        group = bisect.bisect_right(ends, row)
        if group == len(ends):
            raise AudioError(f"{file}#{row}: no such row; the file has {ends[-1] if ends else 0}")
        cells = _row_group(file, group, column, changed)
        audio = cells[row - (ends[group - 1] if group else 0)].as_py() or {}
    except (OSError, pa.ArrowException, KeyError) as error:
        raise AudioError(f"{file}#{row}: cannot be read as Parquet with a column {column}.bytes ({error})") from error
    if not audio.get("bytes"):
        raise AudioError(f"{file}#{row}: holds no audio; expected the bytes of a file in {column}.bytes")
    return audio["bytes"]


# A pass in the order of rows reads each row group once. `changed` (ns) is there to forget a file that is written anew.


@functools.lru_cache(maxsize=16)
def _row_group_ends(file: Path, changed: int) -> list[int]:
    metadata = pq.read_metadata(file)
    return list(itertools.accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)))


@functools.lru_cache(maxsize=1)
def _row_group(file: Path, group: int, column: str, changed: int) -> pa.ChunkedArray:
    with pq.ParquetFile(file) as parquet:
        return parquet.read_row_group(group, columns=[f"{column}.bytes"]).column(column)
