"""The files of an index: path, duration, and what tells whether a file has changed. Kept as Parquet."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import named
from ..files import CheckpointError, atomic_write

# Paths as bytes: names of files need not be Unicode. All is null of a file that was removed.
SCHEMA = pa.schema(
    {
        "path": pa.binary(),
        "duration_s": pa.float64(),
        "stamp": pa.string(),
        "sha256": pa.string(),
        "windows": pa.string(),
    }
)
SURROGATES = "surrogatepass"


@dataclass(slots=True)
class IndexedFile:
    """What an index knows of a file."""

    path: str
    duration_s: float = float("nan")  # of the whole file; NaN where it is not known
    stamp: str = ""  # `models.files.stamp` of the file when all of it was indexed; empty before, or where not known
    sha256: str = ""  # of its content, where it was computed
    windows: str = ""  # length and hop in seconds of the windows that are indexed; empty where it is the whole file


class FileTable:
    """Files by number, from 0 on. Numbers of removed files are not given again, so that rows may keep theirs.

    A table that was read stays as columns until a file is looked for by its path: who only searches a million files
    needs the paths of ten.
    """

    def __init__(self, files: Sequence[IndexedFile | None] = ()) -> None:
        self._table: pa.Table | None = None
        self._files = list(files)
        self._numbers = {file.path: number for number, file in enumerate(self._files) if file}

    def __len__(self) -> int:
        return len(self._numbers) if self._table is None else len(self._table) - self._table["path"].null_count

    def path(self, number: int) -> str:
        """Return the path of a file that is not removed."""
        if self._table is not None:
            return _decoded(self._table["path"][number].as_py())
        file = self._files[number]
        assert file is not None
        return file.path

    @property
    def paths(self) -> list[str | None]:
        """Return the path of each number, None where the file is removed."""
        if self._table is None:
            return [None if file is None else file.path for file in self._files]
        return [None if path is None else _decoded(path) for path in self._table["path"].to_pylist()]

    @property
    def durations_s(self) -> np.ndarray:
        """Return the duration of each number's file in seconds, NaN where it is removed or not known."""
        if self._table is not None:
            return np.asarray(self._table["duration_s"].to_numpy(), float)
        return np.array([file.duration_s if file else np.nan for file in self._files])

    @property
    def alive(self) -> np.ndarray:
        """Return for each number whether its file is not removed, [numbers]."""
        if self._table is not None:
            return np.asarray(self._table["path"].is_valid().to_numpy(), bool)
        return np.array([file is not None for file in self._files], bool)

    def present(self) -> list[IndexedFile]:
        """Return the files that are not removed, in the order in which they were added."""
        return [file for file in self._objects() if file]

    def number(self, path: str) -> int | None:
        """Return the number of a path, if it is indexed."""
        self._objects()
        return self._numbers.get(path)

    def find(self, path: str) -> IndexedFile | None:
        """Return the file of a path, if it is indexed."""
        return None if (number := self.number(path)) is None else self._files[number]

    def add(self, file: IndexedFile) -> int:
        """Add a file in place of one with the same path, and return its number."""
        self.remove(file.path)
        self._files.append(file)
        self._numbers[file.path] = len(self._files) - 1
        return len(self._files) - 1

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        if (number := self.number(path)) is not None:
            self._files[number] = None
            del self._numbers[path]

    def rename(self, file: IndexedFile, path: str) -> None:
        """Give a file another path, in place of what had that."""
        self.remove(path)
        self._numbers[path] = self._numbers.pop(file.path)
        file.path = path

    def _objects(self) -> list[IndexedFile | None]:
        """Return the files, which are then no longer columns."""
        if self._table is not None:
            columns = [self.paths, *(self._table[name].to_pylist() for name in SCHEMA.names[1:])]
            self._table = None
            self._files = [IndexedFile(*row) if row[0] is not None else None for row in zip(*columns, strict=True)]
            self._numbers = {file.path: number for number, file in enumerate(self._files) if file}
        return self._files

    def save(self, path: Path) -> None:
        """Write the table, atomically."""
        columns = {name: [file and getattr(file, name) for file in self._objects()] for name in SCHEMA.names}
        columns["path"] = [one and one.encode("utf-8", SURROGATES) for one in columns["path"]]
        table = pa.table(columns, SCHEMA)
        with atomic_write(path) as partial:
            pq.write_table(table, partial, write_page_checksum=True)

    @classmethod
    def load(cls, path: Path) -> FileTable:
        """Read what `save` wrote.

        Raises:
            CheckpointError: if it is missing or damaged.
            OSError: if it can be neither, as on a disk that fails: it must not be replaced for that.
        """
        made = cls()
        try:
            with named(path):
                made._table = pq.read_table(path, schema=SCHEMA, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
                raise
            raise CheckpointError(f"{path}: damaged ({error}); index the files again") from error
        return made


def _decoded(path: bytes) -> str:
    return path.decode("utf-8", SURROGATES)
