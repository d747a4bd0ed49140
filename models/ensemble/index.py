"""Index audio by its embeddings, and keep the index on disk: one row for each file, or for each window of it.

Rows of any number are handled in bounded memory: what is on the disk is mapped, and additions are appended to it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ..files import CheckpointError, write_json
from ..records import RecordError, check_fields, parse_object, read_with_files
from ..retriever.model import negative_distances
from .captioner_fusion import CODES
from .index_columns import BLOCK, Column, RaggedColumn
from .index_files import FileTable, IndexedFile
from .index_format1 import Format1Record
from .index_record import AGAIN, FORMAT, RECORD, IndexRecord, refuse_no_directory

LARGE = 50_000  # rows from which on embeddings are kept as float16, and are not all compared with a query


class AudioIndex:
    """N rows, each a file or a window of one, with an embedding per retriever as `Retriever.under_metric` gives them.

    Further arrays of a row each may be kept for captioners, by names with a `/`; an index has those alone that all
    additions gave it. `left_unread` says whether `load` did not read them, and `save` would drop them.
    """

    def __init__(self, paths: Sequence[str] = (), embeddings: Mapping[str, np.ndarray] | None = None) -> None:
        self.files = FileTable()
        self.left_unread = False
        self.revision = ""  # of the record that was read or written last
        self._numbers, self._spans = Column(np.zeros(0, np.int32)), Column(np.zeros((0, 2)))
        self._columns: dict[str, Column | RaggedColumn] = {}
        self._alive: np.ndarray | None = None
        if paths:
            self.add(paths, embeddings or {})

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rows(self) -> np.ndarray:
        """Return the numbers of all rows, [N]; not all numbers: files were removed or replaced."""
        if self._alive is None:
            self._alive = np.flatnonzero(self.files.alive[self.numbers]) if len(self.files) else np.zeros(0, int)
        return self._alive

    @property
    def numbers(self) -> np.ndarray:
        """Return the number of each row's file, those of removed files among them."""
        return self._numbers.span(0, len(self._numbers))

    def add(
        self,
        paths: Sequence[str],
        embeddings: Mapping[str, np.ndarray],
        spans: np.ndarray | None = None,
        durations_s: Sequence[float] | None = None,
    ) -> None:
        """Add rows in memory: embeddings [n, D] by retriever, and what else is kept.

        A path that is there is replaced, unless rows are windows.

        Args:
            spans: [n, 2], where each begins and ends in its file, in seconds, if they are windows: these are added to
                the windows of the file that are there.
            durations_s: of the whole files.
        """
        if len(self._numbers):
            self._columns = {name: column for name, column in self._columns.items() if name in embeddings}
        numbers = np.empty(len(paths), np.int32)
        for row, path in enumerate(paths):
            number = None if spans is None else self.files.number(path)
            if number is None:
                number = self.files.add(IndexedFile(path, durations_s[row] if durations_s else float("nan")))
            numbers[row] = number
        for name, rows in embeddings.items():
            if name not in self._columns and not len(self._numbers):
                self._columns[name] = RaggedColumn(Column(), Column()) if rows.dtype == object else Column()
            if name in self._columns:
                self._columns[name].append(rows)
        self._numbers.append(numbers)
        self._spans.append(np.full((len(paths), 2), np.nan) if spans is None else spans)
        self._alive = None

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files with all their rows."""
        for path in paths:
            self.files.remove(path)
        self._alive = None

    @property
    def paths(self) -> list[str]:
        """Return the path of each row, in the order in which they were added."""
        return [self.files.path(number) for number in self.numbers[self.rows]]

    def spans(self, rows: np.ndarray) -> np.ndarray:
        """Return where rows begin and end in their files, [n, 2] in seconds; NaN where they are whole files."""
        return self._spans.take(rows)

    @property
    def embeddings(self) -> dict[str, np.ndarray]:
        """Return the embeddings of all rows, [N, D] float32 by retriever, in memory."""
        return {name: self.vectors(name, self.rows) for name in self.retrievers()}

    @property
    def kept(self) -> dict[str, np.ndarray]:
        """Return what is kept for captioners, of all rows."""
        return {name: column.take(self.rows) for name, column in self._columns.items() if "/" in name}

    def keeps(self, names: set[str]) -> bool:
        """Return whether these are kept of all rows, however few rows there are."""
        return not len(self._numbers) or names <= {*self._columns}

    def retrievers(self) -> list[str]:
        """Return the names of the retrievers."""
        return [name for name in self._columns if "/" not in name]

    def refuse_widths(self, expected: Mapping[str, int], path: Path) -> None:
        """Raise CheckpointError unless each retriever, by its name, has rows of its width, or nothing is indexed."""
        found = {name: self._embeddings(name).span(0, 0) for name in self.retrievers()}
        if len(self._numbers) and {*found} != {*expected}:
            raise CheckpointError(f"{path}: embeddings by {[*found]}, expected them by {[*expected]}; {AGAIN}")
        for name, rows in found.items():
            if rows.shape[1:] != (expected.get(name),) or rows.dtype.kind != "f":
                raise CheckpointError(
                    f"{path}: embeddings by {name}: {rows.dtype} of shape {[*rows.shape[1:]]}, expected float of shape "
                    f"[{expected.get(name)}]; {AGAIN}"
                )

    def vectors(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return a retriever's embeddings of some rows, [n, D] float32.

        Raises:
            CheckpointError: if one is all zeros, which no retriever gives and a failing disk does: a large index is
                not compared with its sums whenever it is searched.
        """
        column = self._embeddings(name)
        found = column.take(rows)
        if column.file and not found.any(axis=1).all():
            raise CheckpointError(
                f"{column.file}: damaged (found zeros, expected an embedding); remove {column.file.parent}, and {AGAIN}"
            )
        return _float32(found).numpy()

    def blocks(self, name: str, start: int = 0) -> Iterator[np.ndarray]:
        """Yield a retriever's embeddings of all rows from a number on, those of removed files among them, in blocks."""
        for block in self._embeddings(name).blocks(start):
            yield _float32(block).numpy()

    def sample(self, size: int) -> np.ndarray:
        """Return the numbers of a random sample of the rows, sorted; of all where there are fewer."""
        rows = self.rows
        return rows if len(rows) <= size else np.sort(np.random.default_rng(0).choice(rows, size, replace=False))

    @property
    def identity(self) -> str:
        """Return the name of the file that numbers the rows: another one when rows have other numbers."""
        return self._numbers.file.name if self._numbers.file else ""

    def similarities(self, texts: Mapping[str, np.ndarray], rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return the similarity [Q, n] of texts [Q, D] to rows by their numbers, or to all of them, by retriever."""
        if rows is None:
            return {name: self._to_all(name, text) for name, text in texts.items()}
        blocks = [rows[at : at + BLOCK] for at in range(0, max(1, len(rows)), BLOCK)]
        return {
            name: np.concatenate([negative_distances(text, self.vectors(name, block)) for block in blocks], axis=1)
            for name, text in texts.items()
        }

    def _to_all(self, name: str, text: np.ndarray) -> np.ndarray:
        found = np.concatenate([negative_distances(text, block) for block in self.blocks(name)], axis=1)
        return found if len(self) == len(self._numbers) else found[:, self.rows]

    def _embeddings(self, name: str) -> Column:
        column = self._columns[name]
        assert isinstance(column, Column)
        return column

    def save(self, directory: Path, provenance: dict[str, str], captioners: Mapping[str, str] | None = None) -> None:
        """Write what was added since, then collection.json; readers see the old index until then.

        All is written anew where half of the rows are of removed files, or another process saved the index meanwhile.

        Args:
            provenance: by retriever, the checksum of its weights.
            captioners: the same of those that something is kept for.

        Raises:
            CheckpointError: if the directory is a file, or a link that leads nowhere.
        """
        refuse_no_directory(directory)
        directory.mkdir(parents=True, exist_ok=True)
        path, stem = directory / RECORD, f"collection-{uuid.uuid4().hex[:12]}"
        if self._appendable(path):
            for column in (self._numbers, self._spans, *self._columns.values()):
                column.append_to_file()
        else:
            self._rewrite(directory / stem)
        files = directory / f"{stem}.parquet"
        self.files.save(files)
        codes = self._columns.get(CODES)
        record = IndexRecord(
            format=FORMAT,
            revision=stem,
            retrievers=provenance,
            captioners=dict(captioners or {}) if any("/" in name for name in self._columns) else {},
            files=files.name,
            numbers=self._numbers.record(),
            spans=self._spans.record(),
            columns={
                name: (column.flat if isinstance(column, RaggedColumn) else column).record()
                for name, column in self._columns.items()
            },
            lengths=codes.lengths.record() if isinstance(codes, RaggedColumn) else None,
        )
        write_json(path, record.model_dump(exclude_defaults=True))
        self.revision = record.revision
        named = {files.name, *(one.file for one in record.all_columns())}
        for other in directory.glob("collection-*"):
            if other.name not in named:
                other.unlink()

    def _precision(self) -> np.dtype:
        return np.dtype(np.float16 if len(self) >= LARGE else np.float32)

    def _appendable(self, path: Path) -> bool:
        """Return whether rows can be appended to the files that the rest is in."""
        if self._numbers.file is None or self._numbers.file.parent != path.parent or not path.is_file():
            return False
        ours = parse_object(path.read_bytes(), path, AGAIN).get("revision") == self.revision
        precise = all(self._embeddings(name).dtype == self._precision() for name in self.retrievers())
        return ours and precise and 2 * len(self) > len(self._numbers)

    def _rewrite(self, stem: Path) -> None:
        """Write all rows to new files, and none of removed files."""
        rows, place = self.rows, np.cumsum(self.files.alive) - 1
        columns: dict[str, Column | RaggedColumn] = {}
        for at, (name, column) in enumerate(self._columns.items()):
            file = stem.with_name(f"{stem.name}-{at}.rows")
            if isinstance(column, RaggedColumn):
                columns[name] = column.copy(file, rows)
            else:
                columns[name] = column.copy(file, rows, column.dtype if "/" in name else self._precision())
        numbers = Column(place[self.numbers[rows]])
        self._numbers = numbers.copy(stem.with_name(f"{stem.name}.numbers"), np.arange(len(rows)), np.int32)
        self._spans = self._spans.copy(stem.with_name(f"{stem.name}.spans"), rows, np.float64)
        self._columns, self._alive = columns, None
        self.files = FileTable(self.files.present())

    @classmethod
    def load(
        cls, directory: Path, provenance: dict[str, str], captioners: Mapping[str, str] | None = None
    ) -> AudioIndex:
        """Read what `save` wrote, of this version or an earlier one; it may be written anew meanwhile.

        Args:
            provenance: as of `save`, of the weights that texts will be embedded with.
            captioners: the same of captioners; where there are none, nothing is read of what is kept for them.

        Raises:
            CheckpointError: if a file is missing or damaged, the two do not belong together, or other weights made it.
        """
        path = directory / RECORD
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; expected an index that was saved")
        return read_with_files(path, lambda content: cls._read(content, path, provenance, captioners or {}))

    @classmethod
    def _read(cls, content: bytes, path: Path, provenance: dict[str, str], captioners: Mapping[str, str]) -> AudioIndex:
        fields = parse_object(content, path, AGAIN)
        if fields.get("format") not in (1, FORMAT):
            raise RecordError(
                f"{path}: format {fields.get('format')!r}, this version reads formats 1 and {FORMAT}; {AGAIN}"
            )
        old = fields["format"] == 1
        record = (
            check_fields(Format1Record, fields, path, AGAIN) if old else check_fields(IndexRecord, fields, path, AGAIN)
        )
        made, asked = record.retrievers, provenance
        if record.captioners and captioners:
            made, asked = made | record.captioners, {**asked, **captioners}
        if made != asked:
            differing = sorted(name for name in {*made, *asked} if made.get(name) != asked.get(name))
            raise CheckpointError(f"{path}: made with other weights of {', '.join(differing)}; {AGAIN}")
        index = (
            _of_format1(record, path)
            if isinstance(record, Format1Record)
            else cls._mapped(record, path, bool(captioners))
        )
        if not captioners:
            index._columns = {name: column for name, column in index._columns.items() if "/" not in name}
        index.left_unread = bool(record.captioners) and not captioners
        return index

    @classmethod
    def _mapped(cls, record: IndexRecord, path: Path, captioners: bool) -> AudioIndex:
        """Return the index of a record, its rows mapped into memory.

        Args:
            captioners: whether what is kept for captioners is used.
        """
        if {one.rows for one in record.all_columns(flat=False)} != {record.numbers.rows}:
            rows = {name: one.rows for name, one in record.columns.items()}
            raise CheckpointError(f"{path}: {record.numbers.rows} rows, but columns of {rows}; {AGAIN}")
        directory, index = path.parent, cls()
        # A search of a small index reads all embeddings, of a large one a few: `check_index` compares those.
        small = record.numbers.rows < LARGE
        columns = {
            name: Column.load(directory, one, whole=small and (captioners or "/" not in name))
            for name, one in record.columns.items()
        }
        index._columns = {**columns}
        index._numbers, index._spans = Column.load(directory, record.numbers), Column.load(directory, record.spans)
        if record.lengths:
            lengths = Column.load(directory, record.lengths)
            if (frames := int(lengths.span(0, len(lengths)).sum())) != len(columns[CODES]):
                raise CheckpointError(
                    f"{path}: {len(columns[CODES])} frames of codes, but lengths of {frames}; {AGAIN}"
                )
            index._columns[CODES] = RaggedColumn(columns[CODES], lengths)
        index.files, index.revision = FileTable.load(directory / record.files), record.revision
        if len(index.numbers) and not 0 <= index.numbers.min() <= index.numbers.max() < len(index.files.alive):
            raise CheckpointError(f"{directory / record.files}: rows of files that it does not have; {AGAIN}")
        return index


def _of_format1(record: Format1Record, path: Path) -> AudioIndex:
    """Return the index of a record of format 1, in memory; it is written in today's format when it is next saved."""
    index = AudioIndex(record.paths, record.read(path, AGAIN))
    for file, stamp in zip(record.paths, record.stamps):
        if found := index.files.find(file):
            found.stamp = stamp
    return index


def _float32(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(rows)).float()  # a copy: what is mapped cannot be written
