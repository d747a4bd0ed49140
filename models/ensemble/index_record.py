"""collection.json, the record of an index: where its rows and files are, and sums by which damage is found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict

from ..files import CheckpointError
from ..records import check_fields, parse_object, read_with_files
from .captioner_fusion import CODES
from .index_columns import ColumnRecord, laid_out
from .index_files import FileTable

FORMAT = 2
RECORD = "collection.json"
AGAIN = "index the files again"


class IndexRecord(BaseModel):
    """collection.json: where the rows and files of an index are, and which weights made them."""

    model_config = ConfigDict(extra="forbid")
    format: int
    revision: str  # another each time that it is written
    retrievers: dict[str, str]  # name to the checksum of its weights
    captioners: dict[str, str] = {}  # the same of those that something is kept for
    files: str  # the table of files
    numbers: Annotated[ColumnRecord, laid_out("int32", [])]  # of each row, the number of its file
    spans: Annotated[
        ColumnRecord, laid_out("float64", [2])
    ]  # of each row, where it begins and ends in its file, in seconds
    columns: dict[str, ColumnRecord]  # embeddings by retriever, and what is kept for captioners
    lengths: Annotated[ColumnRecord, laid_out("int64", [])] | None = (
        None  # of each row's codes, which lie one after another
    )

    def all_columns(self, flat: bool = True) -> list[ColumnRecord]:
        """Return all columns; without `flat`, of codes the column that has a row for each row."""
        columns = [column for name, column in self.columns.items() if flat or name != CODES]
        return [self.numbers, self.spans, *columns, *([self.lengths] if self.lengths else [])]


def refuse_no_directory(path: Path) -> None:
    """Raise CheckpointError if an index cannot be kept at a path, as a file is there or a link that leads nowhere."""
    if os.path.lexists(path) and not path.is_dir():
        found = "a link that leads nowhere" if path.is_symlink() and not path.exists() else "a file"
        raise CheckpointError(f"{path}: found {found}, expected the directory of an index, or nothing; move it away")


def check_index(directory: Path) -> int | None:
    """Compare all bytes of an index with their sums.

    Returns:
        How many bytes were compared; None where there are no sums, as an earlier version wrote the index.

    Raises:
        CheckpointError: if a file is missing or damaged, or this version cannot read the record.
    """
    path = directory / RECORD
    return read_with_files(path, lambda content: _check(content, path))


def _check(content: bytes, path: Path) -> int | None:
    fields = parse_object(content, path, AGAIN)
    if fields.get("format") != FORMAT:
        return None
    record = check_fields(IndexRecord, fields, path, AGAIN)
    for column in record.all_columns():
        column.refuse_damaged(path.parent, whole=True)
    FileTable.load(path.parent / record.files)
    compared = [column.size for column in record.all_columns() if column.crc32 is not None]
    return sum(compared) if compared else None
