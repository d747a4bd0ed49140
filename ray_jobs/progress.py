"""members/<name>/progress.json: how far the training of a member is, for `enclap status` to read from elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from models.files import write_json

FILE = "progress.json"


@dataclass(frozen=True)
class Progress:
    """Written by the first worker before the first epoch and after every one; gone when the member is done."""

    inputs: str  # the fingerprint of what is trained: progress of other settings is not this member's
    epoch: int  # finished
    epochs: int
    values: dict[str, float]  # of the last epoch, as in history.parquet
    monitor: str  # which of them chooses the epoch
    seconds: float  # of the last epoch, with its validation
    updated: float  # seconds since 1970
    error: str | None = None  # why the member failed, once its retries are used up


def write_progress(member: Path, progress: Progress) -> None:
    write_json(member / FILE, asdict(progress))


def read_progress(member: Path, inputs: str) -> Progress | None:
    """The progress of these inputs; None if there is none."""
    try:
        progress = Progress(**json.loads((member / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return progress if progress.inputs == inputs else None


def remove_progress(member: Path) -> None:
    (member / FILE).unlink(missing_ok=True)
