"""Read the tables that jobs hand on beside their JSON files, and refuse by name what cannot be read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pyarrow as pa

from models.files import missing
from models.records import RecordError
from ray_jobs.run import storage

SHOWN = 8  # columns in a message
OF_CANDIDATES = ("clip_id", "caption", "captioner", "fluency_error")  # of each candidates.parquet, beside scores


def read_table(path: Path, command: str, columns: Collection[str] = ()) -> pd.DataFrame:
    """Return a table of a job's directory: Parquet, or by its suffix CSV, all as text.

    Args:
        command: that writes the file, for the message.
        columns: that the caller reads.

    Raises:
        RecordError: if the file is missing, a directory or damaged, or lacks one of the columns.
    """
    named, remedy = storage.uri(path), _again(path, command)
    if not path.is_file():  # of a directory pandas would read the Parquet files in it, be they none
        raise RecordError(f"{named}: {missing(path)}; {remedy}")
    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:  # pandas raises ValueErrors
        said = " ".join(str(error).split())  # Arrow breaks lines
        raise RecordError(f"{named}: damaged ({said}); {remedy}") from error
    require_columns(found, columns, path, command)
    return found


def require_columns(table: pd.DataFrame, columns: Collection[str], path: Path, command: str) -> None:
    """Refuse a table of a file that lacks some columns; the arguments are those of `read_table`.

    Raises:
        RecordError: naming the file and the columns.
    """
    if lacking := [column for column in columns if column not in table]:
        there = ", ".join(map(str, table.columns[:SHOWN])) or "none"
        found = f"found columns {there}, expected {', '.join(lacking)} as well"
        raise RecordError(f"{storage.uri(path)}: {found}; {_again(path, command)}")


def _again(path: Path, command: str) -> str:
    return f"remove {storage.uri(path.parent)} and run `enclap {command}` again"
