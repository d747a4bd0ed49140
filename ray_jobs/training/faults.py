"""What ends a training before its time, in words that say what to do about it."""

from __future__ import annotations

import errno
import faulthandler
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.filesize import decimal

from ray_jobs.training.member_job import MemberJob

STDERR = 2  # the worker's own log


class LossIsNaNError(RuntimeError):
    """Training diverged; the step was not made."""


class DiskFullError(RuntimeError):
    """A checkpoint or result could not be written; the checkpoint before it is whole."""


class MemberOutOfMemoryError(RuntimeError):
    """The member's batch does not fit the accelerator's or the node's memory."""


NAMED = (LossIsNaNError, DiskFullError, MemberOutOfMemoryError)


@contextmanager
def actionable_errors(job: MemberJob, scratch: Path) -> Iterator[None]:
    """Say of a full disk which one and how much is left, and of exhausted memory which settings take less.

    Raises:
        DiskFullError, MemberOutOfMemoryError: in place of what torch, safetensors, pyarrow and Python raise.
    """
    try:
        yield
    except Exception as error:
        if _is_full(error):
            disks = (scratch, next(path for path in job.output.parents if path.exists()))
            free = ", ".join(f"{decimal(shutil.disk_usage(path).free)} free at {path}" for path in disks)
            raise DiskFullError(f"{job.name}: {error}; {free}; make room, the same command resumes") from error
        if _is_out_of_memory(error):
            first = str(error).splitlines()[0] if str(error) else "out of memory"
            raise MemberOutOfMemoryError(f"{job.name}: {first}; {_smaller(job)}") from error
        raise


@contextmanager
def hang_watchdog(timeout_s: float | None) -> Iterator[Callable[[], None]]:
    """Kill this process, every thread's stack in its log, where a call of what this gives is the last for `timeout_s`.

    Ray looks after workers that died. One that waits for a file or for another worker for ever is alive to it.
    """

    def alive() -> None:
        if timeout_s:
            faulthandler.dump_traceback_later(timeout_s, exit=True, file=STDERR)

    try:
        yield alive
    finally:
        faulthandler.cancel_dump_traceback_later()


def reason(error: BaseException) -> str:
    """The line of a failed training's error that says most: an error of this module, else the last line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    names = "|".join(kind.__name__ for kind in NAMED)
    named = [found[1] for line in lines if (found := re.match(rf"(?:[\w.]+\.)?((?:{names}): .*)", line.strip()))]
    return (named or lines)[-1]


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # safetensors passes on what the system said as text alone, torch's own writer not even that
    said = ("No space left on device", "PytorchStreamWriter failed writing", "unexpected pos", "iostream error")
    return any(text in str(error) for text in said)


def _is_out_of_memory(error: Exception) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # of torch, which whoever only reads errors need not load
        or "can't allocate memory" in str(error)
    )


def _smaller(job: MemberJob) -> str:
    """The settings that take less memory and leave the gradient as it is, those of the member's kind first."""
    of_kind = {
        "retriever": ["gradient_cache"],
        "captioner": ["training.accumulate", "gradient_checkpointing: true"],
        "fluency-detector": ["training.accumulate"],
    }
    keys = [*of_kind[job.member.kind], "training.precision: bfloat16", "more resources.workers"]
    return f"set members.{job.name}.{keys[0]}, or {', '.join(keys[1:])}"
