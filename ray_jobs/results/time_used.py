"""Count the time in which jobs of a run with a time limit are at work: time_used.json."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from models.console import say, spell_exactly
from ray_jobs.results.record import ResultRecord
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory

WRITE_S = 10.0  # seconds between writing the time down: what a job that is killed loses of it at most


class TimeUsed(ResultRecord):
    """The working time of a run, from the first job that had a time limit on."""

    FILE: ClassVar[str] = "time_used.json"
    COMMAND: ClassVar[str] = "pipeline"

    seconds: float


def time_used(root: Path) -> float:
    """Return the seconds that are written down of a run."""
    if not storage.exists(root / TimeUsed.FILE):
        return 0.0
    return TimeUsed.read(root, remedy="remove it, and the time starts anew").seconds


def time_left(directory: RunDirectory) -> float | None:
    """Return the seconds left of the run's time limit, at least 0; None without a limit."""
    limit = directory.experiment.time_limit
    return None if limit is None else max(0.0, limit.total_seconds() - time_used(directory.root))


@contextmanager
def counted(directory: RunDirectory) -> Iterator[None]:
    """Add the time of the block to that of the run, if that has a limit, every ten seconds and at the end."""
    if directory.experiment.time_limit is None:
        yield
        return
    limit_s, before = directory.experiment.time_limit.total_seconds(), time_used(directory.root)
    start, ended = time.monotonic(), threading.Event()
    say(f"time_limit: {spell_exactly(limit_s)}, of which {spell_exactly(before)} are used")

    def write() -> None:
        TimeUsed(seconds=before + time.monotonic() - start).write(directory.root)
        storage.push(directory.root / TimeUsed.FILE)

    def write_often() -> None:
        while not ended.wait(WRITE_S):
            with suppress(OSError):  # a store that is away for a while
                write()

    thread = threading.Thread(target=write_often, name="time used", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        write()
