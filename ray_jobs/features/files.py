"""Write and read one feature shard: an Arrow IPC file of clips with codes, log-mels and captions.

The file is not compressed: its matrices are memory-mapped and read as views, at the speed of memory, in any order
(benchmarks/loader.py has the figures). A file without its footer was cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.errors import InputError
from models.files import atomic_write
from ray_jobs.run import storage

METADATA = b"enclap"
MATRICES = ("codes", "log_mel")
COLUMNS = ("clip_id", "path", "freesound_id", "youtube_id", "audio_sha256", "duration_s", "captions", *MATRICES)
IDENTITY = ("clip_id", "audio_sha256", "captions")  # what a clip is, whatever features it has
DAMAGE = (pa.ArrowException, AttributeError, LookupError, TypeError, ValueError)  # what wrong bytes make Arrow raise
SHARDS = "*.arrow"  # the feature shards in a split's directory
EARLIER_SHARDS = "*.parquet"  # those of an earlier version, which are made again


class FeaturesError(InputError, ValueError):
    """Feature shards cannot be used; the message names file or directory, what was found and what was expected."""


def write_shard(path: Path, clips: list[dict[str, Any]], metadata: dict[str, Any], codebooks: int, mels: int) -> None:
    """Write one shard atomically; `metadata` (inputs, codec, quarantine) goes into the file's schema."""
    schema = pa.schema(
        {
            "clip_id": pa.string(),
            "path": pa.string(),
            "freesound_id": pa.string(),
            "youtube_id": pa.string(),
            "audio_sha256": pa.string(),
            "duration_s": pa.float64(),
            "captions": pa.list_(pa.string()),
            "codes": pa.list_(pa.list_(pa.int16(), codebooks)),
            "log_mel": pa.list_(pa.list_(pa.float16(), mels)),
        },
        metadata={METADATA: json.dumps(metadata).encode()},
    )
    arrays = [
        _nested([clip[field.name] for clip in clips], field.type)
        if field.name in MATRICES
        else pa.array([clip[field.name] for clip in clips], field.type)
        for field in schema
    ]
    with atomic_write(path) as partial, pa.ipc.new_file(partial, schema) as file:
        file.write_batch(pa.record_batch(arrays, schema=schema))


def find_shards(directory: Path) -> list[Path]:
    """Return the shards of a split in their order, here or in the store.

    Raises:
        FeaturesError: if there are only those of an earlier version.
    """
    shards = storage.listing(directory, SHARDS)
    if not shards and storage.listing(directory, EARLIER_SHARDS):
        raise FeaturesError(
            f"{storage.uri(directory)}: found features in the form of an earlier version, {EARLIER_SHARDS}, expected "
            f"{SHARDS}; run `enclap prepare`, which makes them again"
        )
    return shards


def file_size(path: Path) -> int:
    """Return the size of a file in bytes, here or in the store.

    Raises:
        FileNotFoundError: if there is none.
    """
    with source_of(path) as source:
        size: int = source.size()
        return size


def shard_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata that `write_shard` recorded in a shard.

    Raises:
        FeaturesError: if the file is damaged.
        FileNotFoundError: if there is none.
    """
    with source_of(path) as source, opened(path, source) as file:
        return metadata_of(file)


def inputs_of(path: Path) -> str | None:
    """Return the fingerprint of what a file beside or of a shard was made from; None if it is missing or damaged."""
    try:
        inputs: str = shard_metadata(path).get("inputs", "")
    except (FeaturesError, FileNotFoundError):
        return None
    return inputs


def inputs_of_whole(path: Path) -> str | None:
    """Return the fingerprint of what a shard was made from; None if it is missing or damaged.

    Damage is a wrong layout. Wrong numbers in a right layout are not looked for: that would read all features.
    """
    try:
        with source_of(path) as source, opened(path, source) as file:
            inputs: str = metadata_of(file)["inputs"]
            if not set(COLUMNS) <= set(file.schema.names):
                return None
            if isinstance(source, pa.MemoryMappedFile):  # a file of a store would be transferred
                file.get_batch(0).validate()
            return inputs
    except (FeaturesError, FileNotFoundError):
        return None


@dataclass(frozen=True)
class ShardTable:
    """Some columns of a shard as lists, and what else is known of it."""

    columns: dict[str, list[Any]]
    metadata: dict[str, Any]
    size: int  # of the file, in bytes


def read_table(path: Path, columns: Sequence[str]) -> ShardTable:
    """Read some columns of a shard, and no other part of the file: from a store, little is transferred.

    Raises:
        FeaturesError: if the file is damaged.
    """
    with source_of(path) as source:
        with opened(path, source) as file:
            numbers = [file.schema.names.index(column) for column in columns]
        with opened(path, source, pa.ipc.IpcReadOptions(included_fields=numbers)) as file:
            read = {name: column.to_pylist() for name, column in zip(columns, columns_of(file, columns), strict=True)}
            return ShardTable(read, metadata_of(file), source.size())


def clips_digest(shards: Iterable[Path]) -> str | None:
    """Return the SHA-256 of what the clips of some shards are: names, decoded sound and captions. None without clips.

    It is the same wherever the corpus lies, however its captions are stored, and whatever features are made of it.
    """
    digest, any_clips = hashlib.sha256(), False
    for shard in shards:
        columns = read_table(shard, IDENTITY).columns
        for clip in zip(*columns.values(), strict=True):
            digest.update(json.dumps(clip).encode())
            any_clips = True
    return digest.hexdigest() if any_clips else None


@dataclass(frozen=True)
class ShardCodes:
    """The codes of a shard's clips, which are mapped where the file is on this node."""

    clip_ids: list[str]
    codes: np.ndarray  # [frames of all clips, Q] int16
    lengths: np.ndarray  # frames of each clip
    codec: dict[str, Any]  # provenance of the codes


def read_codes(path: Path) -> ShardCodes:
    """Read the codes of a shard, and no other part of the file.

    Raises:
        FeaturesError: if the file is damaged.
    """
    with source_of(path) as source:
        with opened(path, source) as file:
            numbers = [file.schema.names.index(column) for column in ("clip_id", "codes")]
        with opened(path, source, pa.ipc.IpcReadOptions(included_fields=numbers)) as file:
            clip_ids, column = columns_of(file, ("clip_id", "codes"))
            codes = _Matrices.of(column)
            return ShardCodes(clip_ids.to_pylist(), codes.values, np.diff(codes.offsets), metadata_of(file)["codec"])


class MappedShard:
    """The matrices of a shard on this node, memory-mapped: nothing is read before it is used, and nothing copied.

    Views keep the mapping alive, even of a file that is removed; no file stays open.
    """

    def __init__(self, path: Path) -> None:
        with pa.memory_map(str(path)) as source, opened(path, source) as file:
            found = zip(MATRICES, columns_of(file, MATRICES), strict=True)
            self._columns = {name: _Matrices.of(column) for name, column in found}

    def matrix(self, column: str, row: int) -> np.ndarray:
        """Return a clip's `codes` [T, Q] int16 or `log_mel` [frames, mels] float16: a view, not to be written to."""
        return self._columns[column][row]


@dataclass(frozen=True)
class _Matrices:
    """A column of matrices: all rows of all of them, and where each begins."""

    values: np.ndarray  # [rows of all clips, width]
    offsets: np.ndarray  # [clips + 1]

    @classmethod
    def of(cls, column: pa.Array) -> _Matrices:
        flat = column.values.values.to_numpy(zero_copy_only=True)
        return cls(flat.reshape(-1, column.type.value_type.list_size), column.offsets.to_numpy())

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


def source_of(path: Path) -> pa.NativeFile:
    """Open a file, here or in the store; of a mapped file only the parts that are used are read.

    Raises:
        FeaturesError: if it is a directory.
        FileNotFoundError: if there is none.
    """
    found = storage.source(path)
    if isinstance(found, Path) and found.is_dir():
        raise FeaturesError(f"{storage.uri(path)}: found a directory, expected an Arrow IPC file; remove it")
    return pa.memory_map(str(found)) if isinstance(found, Path) else found


@contextmanager
def opened(path: Path, source: pa.NativeFile, options: pa.ipc.IpcReadOptions | None = None) -> Iterator[Any]:
    """Open a file of one record batch for reading.

    Raises:
        FeaturesError: if the file was cut off or is damaged, also where that shows while it is read.
    """
    # Of a file here, Arrow's OSError says that it is damaged; of one in a store, that the store cannot be reached.
    damage = (*DAMAGE, OSError) if isinstance(source, pa.MemoryMappedFile) else DAMAGE
    try:
        with pa.ipc.open_file(source, options=options) as file:
            if file.num_record_batches != 1:
                raise ValueError(f"{file.num_record_batches} record batches")
            yield file
    except damage as error:
        said = " ".join(str(error).split())
        raise FeaturesError(
            f"{storage.uri(path)}: found a file that was cut off or damaged ({said}), expected a whole Arrow IPC file "
            "of one batch; `enclap prepare` makes it again"
        ) from error


def columns_of(file: pa.ipc.RecordBatchFileReader, names: Sequence[str]) -> list[pa.Array]:
    """Return columns of a file that `opened` opened, whose texts and offsets are checked; numbers are not read.

    Offsets of a damaged file may lead out of it, and to follow one would end the process.
    """
    batch = file.get_batch(0)
    found = [batch[name] for name in names]
    for column in found:
        column.validate(full=True)
    return found


def metadata_of(file: pa.ipc.RecordBatchFileReader) -> dict[str, Any]:
    """Return the metadata that was recorded in a file's schema."""
    return json.loads(file.schema.metadata[METADATA])


def _nested(matrices: list[np.ndarray], kind: pa.DataType) -> pa.Array:
    """Convert matrices [T_i, width] to list<fixed_size_list<width>> without a Python object per number."""
    width = kind.value_type.list_size
    offsets = np.cumsum([0, *(len(matrix) for matrix in matrices)], dtype=np.int32)
    flat = np.concatenate([matrix.reshape(-1) for matrix in matrices]) if matrices else np.empty(0)
    values = pa.array(flat.astype(kind.value_type.value_type.to_pandas_dtype()), kind.value_type.value_type)
    return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(values, width)).cast(kind)
