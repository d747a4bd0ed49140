"""Arrays with a row for each row of an index: on the disk, where they are mapped into memory, and later ones in memory.

A file holds rows one after another, without a header. How many of them count is written elsewhere, after them: what a
process that was killed had appended is overwritten by the next. So is the CRC-32 of their bytes, which appending
continues without reading the others again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..errors import named
from ..files import CheckpointError

BLOCK = 16_384  # rows that are read into memory at a time
RAGGED = 1024  # rows of arrays, likewise
CHUNK = 2**20  # bytes, likewise


class ColumnRecord(BaseModel):
    """Where the rows of a column are on the disk."""

    model_config = ConfigDict(extra="forbid")
    file: str
    dtype: Annotated[str, Field(pattern=r"^(float(16|32|64)|u?int(8|16|32|64))$")]
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=2**16)]], Field(max_length=3)]  # of a row
    rows: Annotated[int, Field(ge=0)]
    crc32: Annotated[int, Field(ge=0, lt=2**32)] | None = None  # of the bytes of all rows; earlier versions wrote none

    @property
    def size(self) -> int:
        """Return how many bytes the rows have."""
        return self.rows * np.dtype(self.dtype).itemsize * int(np.prod(self.shape))

    def refuse_damaged(self, directory: Path, whole: bool) -> None:
        """Raise CheckpointError if the file is missing or shorter than the rows, or has other bytes than were written.

        Args:
            directory: that the file is in.
            whole: whether all bytes are read to compare their sum, where the record has one.
        """
        file = directory / self.file
        if not file.is_file():
            raise CheckpointError(f"{directory}: {self.file} is not there; index the files again")
        if (found := file.stat().st_size) < self.size:
            raise CheckpointError(f"{file}: damaged (found {found} bytes, expected {self.size}); index the files again")
        if whole and self.crc32 is not None and (crc32 := _sum_of(file, self.size)) != self.crc32:
            raise CheckpointError(
                f"{file}: damaged (found bytes of CRC-32 {crc32:08x}, expected {self.crc32:08x}); remove {directory}, "
                "and index the files again"
            )


def laid_out(dtype: str, shape: list[int]) -> AfterValidator:
    """Return what refuses the record of a column of another type or shape."""

    def check(record: ColumnRecord) -> ColumnRecord:
        if (record.dtype, record.shape) != (dtype, shape):
            raise ValueError(f"{dtype} of shape {shape}, not {record.dtype} of shape {record.shape}")
        return record

    return AfterValidator(check)


class Column:
    """N rows of one shape and type."""

    def __init__(self, rows: np.ndarray | None = None, file: Path | None = None, crc32: int | None = None) -> None:
        """Hold rows, which are those of a file, mapped, where there is one, and their sum where it is known."""
        self._saved, self._added = (None, [] if rows is None else [rows]) if file is None else (rows, [])
        self.file, self._crc32 = file, crc32

    def __len__(self) -> int:
        return self.saved + sum(map(len, self._added))

    @property
    def saved(self) -> int:
        """Return how many of the rows are on the disk."""
        return 0 if self._saved is None else len(self._saved)

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the rows, of those on the disk where there are any."""
        return self._parts()[0].dtype

    def append(self, rows: np.ndarray) -> None:
        """Add rows [n, ...], in memory."""
        self._added.append(rows)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return rows by their numbers."""
        parts = self._parts()
        if len(parts) == 1:
            only: np.ndarray = parts[0][rows]
            return only
        late = rows >= self.saved
        found = np.empty((len(rows), *parts[1].shape[1:]), parts[1].dtype)
        found[~late], found[late] = parts[0][rows[~late]], parts[1][rows[late] - self.saved]
        return found

    def span(self, start: int, stop: int) -> np.ndarray:
        """Return the rows from `start` up to `stop`, without a copy where one part has them all."""
        at, found = 0, []
        for part in self._parts():
            if start < at + len(part) and stop > at:
                found.append(part[max(0, start - at) : stop - at])
            at += len(part)
        if not found:
            return self._parts()[0][:0]
        return found[0] if len(found) == 1 else np.concatenate([part.astype(found[-1].dtype) for part in found])

    def blocks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Yield all rows from `start` on, in order, a block at a time."""
        for at in range(start, len(self), BLOCK):
            yield self.span(at, min(at + BLOCK, len(self)))

    def append_to_file(self) -> None:
        """Write to its file what was added since."""
        assert self.file is not None
        if self._crc32 is None:  # of an earlier version, for the first time
            self._crc32 = _sum_of(self.file, self._parts()[0].nbytes)
        self._crc32 = _write(self.file, self._parts()[0], self.saved, self.blocks(self.saved), self._crc32)
        self._saved, self._added = _mapped(self.file, self._parts()[0], len(self)), []

    def copy(self, file: Path, rows: np.ndarray, dtype: npt.DTypeLike) -> Column:
        """Write some of the rows to a new file, and return them as a column of it."""
        like = self._parts()[0][:0].astype(dtype)
        crc32 = _write(file, like, 0, (self.take(rows[at : at + BLOCK]) for at in range(0, len(rows), BLOCK)))
        return Column(_mapped(file, like, len(rows)), file, crc32)

    def record(self) -> ColumnRecord:
        """Return where its rows on the disk are."""
        assert self.file is not None
        shape = [*self._parts()[0].shape[1:]]
        return ColumnRecord(file=self.file.name, dtype=self.dtype.name, shape=shape, rows=self.saved, crc32=self._crc32)

    @classmethod
    def load(cls, directory: Path, record: ColumnRecord, whole: bool = True) -> Column:
        """Map the rows that a record names; see `ColumnRecord.refuse_damaged`."""
        record.refuse_damaged(directory, whole)
        file, like = directory / record.file, np.empty((0, *record.shape), record.dtype)
        return cls(_mapped(file, like, record.rows), file, record.crc32)

    def _parts(self) -> list[np.ndarray]:
        if len(self._added) > 1:
            self._added = [np.concatenate(self._added)]
        return [*([] if self._saved is None else [self._saved]), *self._added]


class RaggedColumn:
    """N rows that are arrays themselves, which differ in their first axis: all of them, one after another."""

    def __init__(self, flat: Column, lengths: Column) -> None:
        self.flat, self.lengths = flat, lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def append(self, rows: Iterable[np.ndarray]) -> None:
        """Add rows [n] of arrays, in memory."""
        rows = [*rows]
        self.flat.append(np.concatenate(rows))
        self.lengths.append(np.array([len(row) for row in rows]))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return rows by their numbers, as an array of arrays."""
        lengths = self.lengths.span(0, len(self))
        ends = np.cumsum(lengths)
        return ragged([self.flat.span(ends[row] - lengths[row], ends[row]) for row in rows])

    def append_to_file(self) -> None:
        """Write to its files what was added since."""
        self.flat.append_to_file()
        self.lengths.append_to_file()

    def copy(self, file: Path, rows: np.ndarray) -> RaggedColumn:
        """Write some of the rows to new files, one beside `file`, and return them as a column of these."""
        like, total = self.flat.span(0, 0), int(self.lengths.take(rows).sum())
        blocks = (rows[at : at + RAGGED] for at in range(0, len(rows), RAGGED))
        crc32 = _write(file, like, 0, (np.concatenate([*self.take(block)]) for block in blocks))
        lengths = self.lengths.copy(file.with_suffix(".lengths"), rows, np.int64)
        return RaggedColumn(Column(_mapped(file, like, total), file, crc32), lengths)


def ragged(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays as the rows of one array of objects."""
    rows = np.empty(len(arrays), object)
    for row, array in enumerate(arrays):
        rows[row] = array
    return rows


def _sum_of(file: Path, size: int) -> int:
    """Return the CRC-32 of the first `size` bytes of a file."""
    crc32 = 0
    with named(file), file.open("rb") as opened:
        while size and (read := opened.read(min(size, CHUNK))):
            crc32, size = zlib.crc32(read, crc32), size - len(read)
    return crc32


def _write(file: Path, like: np.ndarray, rows: int, blocks: Iterable[np.ndarray], crc32: int = 0) -> int:
    """Write blocks of rows after the first `rows` of a file, in place of what else it holds.

    Args:
        crc32: the sum of the first `rows`.

    Returns:
        The sum of all rows.
    """
    with named(file), file.open("r+b" if rows else "wb") as opened:
        opened.seek(rows * like.dtype.itemsize * int(np.prod(like.shape[1:])))
        opened.truncate()
        for block in blocks:
            with np.errstate(over="ignore"):
                converted = block.astype(like.dtype)
            if like.dtype == np.float16 and not np.isfinite(converted).all():
                raise CheckpointError(f"{file}: found embeddings that are not finite as float16, expected finite ones")
            written = np.ascontiguousarray(converted).data
            opened.write(written)
            crc32 = zlib.crc32(written, crc32)
        opened.flush()
        os.fsync(opened.fileno())
    return crc32


def _mapped(file: Path, like: np.ndarray, rows: int) -> np.ndarray:
    shape = (rows, *like.shape[1:])
    return np.memmap(file, like.dtype, "r", shape=shape) if rows else np.empty(shape, like.dtype)
