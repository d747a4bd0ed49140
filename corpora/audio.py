"""Read the audio of a clip from its path: a file, a row of a Parquet file, or two clips mixed together."""

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

from corpora.mixing import Mixture
from models.audio import AudioError, load_audio, read_duration

_PARQUET_CLIP = re.compile(r"(?P<file>.+\.parquet)#(?P<row>\d+)(?::(?P<column>.+))?", re.DOTALL)
_AUDIO_COLUMN = "audio"


def load_clip(
    path: str | Path, sample_rate: int, max_duration_s: float | None = None, strict: bool = False
) -> npt.NDArray[np.float32]:
    """Read a clip as `models.audio.load_audio` reads a file.

    Args:
        path: that of an audio file, of a row of a Parquet file (`parquet_clip`), or of two clips mixed together
            (`corpora.mixing.Mixture.path`).

    Returns:
        Samples, [time], float32, contiguous.

    Raises:
        AudioError: as `load_audio`; also if the Parquet file has no such row, or the row has no audio.
    """
    mixture = Mixture.of_path(str(path))
    if mixture:
        first, second = (load_clip(part, sample_rate, strict=strict) for part in (mixture.first, mixture.second))
        mixed = mixture.mix(first, second)
        return mixed if max_duration_s is None else mixed[: round(max_duration_s * sample_rate)]
    return load_audio(_source(path), sample_rate, max_duration_s, strict, name=str(path))


def clip_duration(path: str | Path) -> float:
    """Return a clip's length in seconds as its header states, without decoding it.

    Raises:
        AudioError: if the file is missing or its header cannot be read.
    """
    mixture = Mixture.of_path(str(path))
    if mixture:
        return max(clip_duration(mixture.first), clip_duration(mixture.second))
    return read_duration(_source(path), name=str(path))


def files_of(path: str) -> list[Path]:
    """Return the files that a clip is read from: itself, a Parquet file, or those of both clips of a mixture."""
    mixture = Mixture.of_path(path)
    if mixture:
        return [*files_of(mixture.first), *files_of(mixture.second)]
    inside = _PARQUET_CLIP.fullmatch(path)
    return [Path(inside["file"] if inside else path)]


def _source(path: str | Path) -> Path | io.BytesIO:
    """Return the file to be decoded: itself, or the bytes in a row of a Parquet file."""
    inside = _PARQUET_CLIP.fullmatch(str(path))
    if not inside:
        return Path(path)
    file = Path(inside["file"])
    if not file.is_file():
        raise AudioError(f"{path}: {'is not a file' if file.exists() else 'no such file'}")
    return io.BytesIO(_row_bytes(file, int(inside["row"]), inside["column"] or _AUDIO_COLUMN))


# --- audio inside Parquet files ------------------------------------------------------------------------------------


def parquet_clip(file: Path, row: int, column: str = _AUDIO_COLUMN) -> str:
    """Return the path of the audio in a row of a Parquet file, counted from 0: `<file>.parquet#<row>`.

    If the column (struct<bytes, path>) is not called audio, its name is added: `<file>.parquet#<row>:<column>`.
    """
    return f"{file}#{row}" if column == _AUDIO_COLUMN else f"{file}#{row}:{column}"


def _row_bytes(file: Path, row: int, column: str) -> bytes:
    try:
        changed = os.stat(file).st_mtime_ns
        ends = _row_group_ends(file, changed)
        group = bisect.bisect_right(ends, row)
        if group == len(ends):
            raise AudioError(f"{file}#{row}: no such row; the file has {ends[-1] if ends else 0} rows")
        cells = _row_group(file, group, column, changed)
        audio = cells[row - (ends[group - 1] if group else 0)].as_py() or {}
    except (OSError, pa.ArrowException, KeyError) as error:
        raise AudioError(f"{file}#{row}: cannot be read as Parquet with a column {column}.bytes ({error})") from error
    if not audio.get("bytes"):
        raise AudioError(f"{file}#{row}: holds no audio; expected the bytes of a file in {column}.bytes")
    return audio["bytes"]


# Rows in order read each row group once. `changed` (ns) is part of the key, so that a rewritten file is read anew.


@functools.lru_cache(maxsize=16)
def _row_group_ends(file: Path, changed: int) -> list[int]:
    metadata = pq.read_metadata(file)
    return list(itertools.accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)))


@functools.lru_cache(maxsize=1)
def _row_group(file: Path, group: int, column: str, changed: int) -> pa.ChunkedArray:
    with pq.ParquetFile(file) as parquet:
        return parquet.read_row_group(group, columns=[f"{column}.bytes"]).column(column)
