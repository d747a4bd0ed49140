"""Read and write feature shards: Parquet files of clips with codes, log-mels and captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import InputError
from models.files import atomic_write
from ray_jobs.run import storage

METADATA = b"enclap"
CLIPS_PER_GROUP = 8  # clips in a row group, the smallest part of a file that can be read
GROUPS_KEPT = 32  # in memory, the last ones read
IN_MEMORY_BYTES = 4 << 30  # larger features are not kept in memory but read when needed


class FeaturesError(InputError, ValueError):
    """Feature shards cannot be used; the message names the directory, what was found and what was expected."""


@dataclass
class Features:
    """The clips of one or several splits; item i of each list belongs to clip i."""

    clip_ids: list[str]
    paths: list[str]
    captions: list[list[str]]
    durations_s: list[float]
    codes: Sequence[np.ndarray]  # [T_i, Q] int16
    log_mels: Sequence[np.ndarray]  # [frames_i, mels] float16
    origins: list[int]  # index of the directory that each clip is from
    codec: dict[str, Any]  # provenance of the codes

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def file_names(self) -> list[str]:
        """Return the file names of clips for submissions; for a row of a Parquet file its clip_id."""
        pairs = zip(self.clip_ids, self.paths, strict=True)
        return [clip_id if ".parquet#" in path else Path(path).name for clip_id, path in pairs]

    def head(self, clips: int | None) -> Features:
        """Return the first `clips` clips; all of them for None."""
        lists = {f.name: getattr(self, f.name)[:clips] for f in fields(self) if f.name != "codec"}
        return replace(self, **lists)


class StoredMatrices(Sequence[np.ndarray]):
    """One column of many shards, read on access: a corpus may be larger than memory."""

    def __init__(self, column: str, cells: list[tuple[Path, int]]) -> None:
        self.column, self.cells = column, cells  # shard of each clip, and its row there
        self._group = lru_cache(GROUPS_KEPT)(self._read)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return StoredMatrices(self.column, self.cells[at])
        shard, row = self.cells[at]
        return self._group(shard, row // CLIPS_PER_GROUP)[row % CLIPS_PER_GROUP]

    def _read(self, shard: Path, group: int) -> list[np.ndarray]:
        with pq.ParquetFile(shard) as file:
            return _matrices(file.read_row_group(group, columns=[self.column])[self.column])


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
    nested = ("codes", "log_mel")
    arrays = [
        _nested([clip[field.name] for clip in clips], field.type)
        if field.name in nested
        else pa.array([clip[field.name] for clip in clips], field.type)
        for field in schema
    ]
    with atomic_write(path) as partial:
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=schema),
            partial,
            compression="zstd",
            row_group_size=CLIPS_PER_GROUP,
            use_dictionary=["codes.list.element.list.element"],  # ten bits a code; log-mels have no repeated values
        )


def shard_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata that `write_shard` recorded in a shard."""
    return json.loads(pq.read_schema(storage.source(path)).metadata[METADATA])


def read_features(directories: list[Path], in_memory_bytes: int = IN_MEMORY_BYTES) -> Features:
    """Read all shards of the given splits; codes and log-mels larger than `in_memory_bytes` stay in their files.

    Raises:
        FeaturesError: if there is no clip, or if the shards come from different codecs.
    """
    directories = [storage.pull(directory) for directory in directories]
    found = [(origin, shard) for origin, folder in enumerate(directories) for shard in sorted(folder.glob("*.parquet"))]
    codec = _one_codec([shard for _, shard in found])
    layouts = [pq.read_metadata(shard) for _, shard in found]
    stored = sum(_uncompressed_bytes(layout) for layout in layouts) > in_memory_bytes
    columns = ["clip_id", "path", "captions", "duration_s"] + ([] if stored else ["codes", "log_mel"])
    features = Features([], [], [], [], [], [], [], codec)
    codes: list[np.ndarray] = []
    log_mels: list[np.ndarray] = []
    for origin, shard in found:
        table = pq.read_table(shard, columns=columns)
        features.clip_ids += table["clip_id"].to_pylist()
        features.paths += table["path"].to_pylist()
        features.captions += table["captions"].to_pylist()
        features.durations_s += table["duration_s"].to_pylist()
        features.origins += [origin] * table.num_rows
        if not stored:
            codes += _matrices(table["codes"])
            log_mels += _matrices(table["log_mel"])
    if not len(features):
        listed = ", ".join(str(directory) for directory in directories)
        raise FeaturesError(f"no clips in {listed}; expected feature shards made by `enclap prepare`")
    if not stored:
        return replace(features, codes=codes, log_mels=log_mels)
    cells = [(shard, row) for (_, shard), layout in zip(found, layouts) for row in range(layout.num_rows)]
    return replace(features, codes=StoredMatrices("codes", cells), log_mels=StoredMatrices("log_mel", cells))


def _one_codec(shards: list[Path]) -> dict[str, Any]:
    """Return the provenance of the codes, which must be the same in all shards."""
    codecs = [shard_metadata(shard)["codec"] for shard in shards]
    for shard, codec in zip(shards, codecs, strict=True):
        if codec != codecs[0]:
            differing = [key for key in {**codecs[0], **codec} if codec.get(key) != codecs[0].get(key)]
            values = "; ".join(f"{key} {codec.get(key)!r}, there {codecs[0].get(key)!r}" for key in differing)
            raise FeaturesError(
                f"{shard}: codes of another codec than in {shards[0]}: {values}; prepare both with one codec"
            )
    return codecs[0] if codecs else {}


def _uncompressed_bytes(layout: pq.FileMetaData) -> int:
    return sum(layout.row_group(group).total_byte_size for group in range(layout.num_row_groups))


def _nested(matrices: list[np.ndarray], kind: pa.DataType) -> pa.Array:
    """Convert matrices [T_i, width] to list<fixed_size_list<width>> without a Python object per number."""
    width = kind.value_type.list_size
    offsets = np.cumsum([0, *(len(matrix) for matrix in matrices)], dtype=np.int32)
    flat = np.concatenate([matrix.reshape(-1) for matrix in matrices]) if matrices else np.empty(0)
    values = pa.array(flat.astype(kind.value_type.value_type.to_pandas_dtype()), kind.value_type.value_type)
    return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(values, width)).cast(kind)


def _matrices(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Convert a column of `_nested` back to matrices, which are views of the column's memory."""
    matrices: list[np.ndarray] = []
    for array in column.chunks:
        width = array.type.value_type.list_size
        flat = array.flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        ends = np.cumsum(pa.compute.list_value_length(array).to_numpy(zero_copy_only=False))
        matrices += np.split(flat, ends[:-1].astype(int)) if len(array) else []
    return matrices
