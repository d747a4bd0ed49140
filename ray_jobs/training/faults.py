"""Turn what ends a training early into errors that say what to do about it."""

from __future__ import annotations

import errno
import faulthandler
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
from rich.filesize import decimal

from ray_jobs.features.shard_cache import StoreUnreachableError
from ray_jobs.training.job import TrainingJob

STDERR = 2  # the worker's own log
RAY_KILLED = "due to the node running low on memory"  # its last lines are advice on settings of Ray itself
LESS_MEMORY = (
    "fewer members at once (more resources.cpus_per_worker) or smaller parts of a batch (training.accumulate) need less"
)


class LossIsNaNError(RuntimeError):
    """Training diverged; the step with the infinite gradient was not made."""


class DiskFullError(RuntimeError):
    """A checkpoint or result could not be written; the previous checkpoint is intact."""


class MemberOutOfMemoryError(RuntimeError):
    """A batch does not fit into the accelerator's or the node's memory."""


LASTING = (LossIsNaNError, DiskFullError, MemberOutOfMemoryError)  # a restart would meet them again
NAMED = (*LASTING, StoreUnreachableError)


class EndAtOnce(ray.train.UserCallback):
    """Ends a training at its first lasting error, which Ray Train would else restart as often as after lost workers.

    An error of a callback is none that Ray Train restarts after.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise a worker's lasting error."""
        for error in worker_exceptions.values():
            if isinstance(error, LASTING):
                raise RuntimeError(f"{type(error).__name__}: {error}")  # as `reason` reads it


@contextmanager
def actionable_errors(job: TrainingJob, memory_remedy: str, scratch: Path) -> Iterator[None]:
    """Raise errors that name the disk that is full and what is left on it, or the settings that need less memory.

    Raises:
        DiskFullError, MemberOutOfMemoryError: in place of what torch, safetensors, pyarrow and Python raise.
    """
    try:
        yield
    except Exception as error:
        if any(kind.__name__ in str(error) for kind in LASTING):  # a worker has named it
            raise
        if _is_full(error):
            disks = (scratch, next(path for path in job.output.parents if path.exists()))
            free = ", ".join(f"{decimal(shutil.disk_usage(path).free)} free at {path}" for path in disks)
            raise DiskFullError(f"{job.name}: {error}; {free}; make room, the same command resumes") from error
        if _is_out_of_memory(error):
            first = str(error).splitlines()[0] if str(error) else "out of memory"
            raise MemberOutOfMemoryError(f"{job.name}: {first}; {memory_remedy}") from error
        raise


@contextmanager
def hang_watchdog(timeout_s: float | None) -> Iterator[Callable[[], None]]:
    """Yield a function that must be called every `timeout_s` seconds from its first call on.

    Otherwise the process is killed, with every thread's stack in its log. Ray restarts workers that died; one that
    waits without end for a file or for another worker is alive to it.
    """

    def alive() -> None:
        if timeout_s:
            faulthandler.dump_traceback_later(timeout_s, exit=True, file=STDERR)

    try:
        yield alive
    finally:
        faulthandler.cancel_dump_traceback_later()


def reason(error: BaseException) -> str:
    """Return the most informative line of a failed training's error: an error of this module, else the last line.

    Where Ray killed a process, since the node's memory was used up, it says how much was used, and what needs less.
    """
    if RAY_KILLED in str(error):
        used = re.search(r"was ([\d.]+GB used / [\d.]+GB limit)", str(error))
        return f"killed, as its node ran out of memory{f' ({used[1]})' if used else ''}; {LESS_MEMORY}"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    names = "|".join(kind.__name__ for kind in NAMED)
    named = [found[1] for line in lines if (found := re.match(rf"(?:[\w.]+\.)?((?:{names}): .*)", line.strip()))]
    return (named or lines)[-1]


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors passes on only the text of the system's error, torch's own writer not even that
    said = ("No space left on device", "PytorchStreamWriter failed writing", "unexpected pos", "iostream error")
    return any(text in str(error) for text in said)


def _is_out_of_memory(error: Exception) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # of torch, which is not loaded just to read errors
        or "can't allocate memory" in str(error)
    )
