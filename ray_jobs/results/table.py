"""Read the Parquet files that jobs hand on beside their JSON files, and refuse by name what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from models.records import RecordError
from ray_jobs.run import storage


def read_table(path: Path, command: str) -> pd.DataFrame:
    """Return a table of a job's directory.

    Args:
        command: that writes the file, for the message.

    Raises:
        RecordError: if the file is missing or damaged.
    """
    remedy = f"remove {storage.uri(path.parent)} and run `enclap {command}` again"
    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise RecordError(f"{storage.uri(path)}: no such file; {remedy}") from error
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())  # Arrow breaks lines
        raise RecordError(f"{storage.uri(path)}: damaged ({said}); {remedy}") from error
