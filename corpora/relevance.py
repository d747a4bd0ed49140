"""Read which clips are right for a query, where there may be several."""

from __future__ import annotations

import ast
from pathlib import Path

from models.csv_files import Line, read_csv
from models.errors import CorpusError


def read_relevance(path: Path) -> dict[str, dict[str, int]]:
    """Read a relevance file, of either layout.

    That of DCASE 2025 Task 6 has the columns `query,audio_filenames`, the second a list of names as Python writes it.
    The other has `caption,file_name`, a row for each clip that is right.

    Returns:
        By query, verbatim and in the order of the file: the names of its clips, and the line that each is in.

    Raises:
        CorpusError: the file is missing, has other columns or no rows; naming the line whose query is blank or that
            names no clip.
    """
    table = read_csv(path, "a CSV file of query,audio_filenames or caption,file_name")
    listed = "audio_filenames" in table.columns
    if not {"query", "audio_filenames"} <= set(table.columns) and not {"caption", "file_name"} <= set(table.columns):
        raise table.unexpected_columns("query, audio_filenames (DCASE 2025) or caption, file_name")
    column = "query" if listed else "caption"
    queries = table.texts([column])
    table.refuse_blank(column)
    right: dict[str, dict[str, int]] = {}
    for line, query in zip(table.lines, queries, strict=True):
        names = _listed(path, line) if listed else [line.cells["file_name"]]
        of_query = right.setdefault(query, {})
        for name in names:
            of_query.setdefault(name, line.number)
    return right


def _listed(path: Path, line: Line) -> list[str]:
    """Return the names in a cell that holds a list as Python writes it."""
    cell = line.cells["audio_filenames"]
    try:
        names = ast.literal_eval(cell)  # reads constants, and runs nothing
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise CorpusError(
            f"{path}, line {line.number}: audio_filenames: found {cell[:80]!r}, expected a list such as "
            "['rain.wav', 'dog.wav']"
        )
    return names
