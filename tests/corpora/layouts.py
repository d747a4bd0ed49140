"""Write corpora as they are published, for the adapters to read."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path


def touch(folder: Path, names: Iterable[str]) -> None:
    """Write empty files: adapters do not look into audio."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_csv(path: Path, columns: Sequence[str], *rows: Sequence[str], encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([columns, *rows])
