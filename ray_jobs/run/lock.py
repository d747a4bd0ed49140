"""Let one process write a run directory: a second job is refused, the lock of one that died is taken over.

The lock is filelock's SoftFileLease: a file created with O_EXCL, so it works between hosts on a shared file system,
and touched by a heartbeat as long as its owner lives. The death of an owner on this host shows immediately by its
process id; on another host by the absence of heartbeats while this process watches, so that clocks need not agree.

A run in an object store has this lock in the working copy, and that of store_lease.py in the store.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import LeaseCompromise, LeaseSettingsMismatch, SoftFileLease, Timeout

from models.console import say, spell_duration
from models.errors import InputError, named
from models.files import write_json
from ray_jobs.experiment.config import ConfigError
from ray_jobs.run import storage, store_lease
from ray_jobs.run.signals import exit_on_signals

LOCK, OWNER = ".lock", ".owner.json"
LEASE_S = 120.0  # seconds without a heartbeat after which another process may take the directory over
TRY_S = 1.0  # seconds; a takeover needs a second look where the file system cannot exchange two names


class RunBusyError(InputError):
    """Another process writes the run directory; the message names it."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a run directory, or held it last."""

    host: str
    pid: int
    job: str | None  # the submission id, inside `ray job submit`
    command: str
    started: float  # seconds since 1970

    def __str__(self) -> str:
        job = f"job {self.job}, " if self.job else ""
        return f"`{self.command}` ({job}process {self.pid} on {self.host}, started {_ago(time.time() - self.started)})"


@contextmanager
def only_writer(root: Path, lease_s: float = LEASE_S) -> Iterator[None]:
    """Hold the run directory `root` during the block, and release it however the block ends.

    Raises:
        RunBusyError: if another process holds it.
        ConfigError: if nothing can be written there.
    """
    new = [folder for folder in (root, *root.parents) if not folder.exists()]
    lease = SoftFileLease(root / LOCK, lease_duration=lease_s, poll_interval=TRY_S / 5, on_compromise=_stop)
    with _writable(root):
        root.mkdir(parents=True, exist_ok=True)
        before = read_owner(root)
        _acquire(lease, root, lease_s)
    try:
        write_json(root / OWNER, asdict(_this_process()))
        with _held_in_store(root, lease_s), exit_on_signals():
            if before:
                say(f"the run's lock is taken over from {before}, which ended without releasing it", style="yellow")
            yield
    except store_lease.StoreBusyError as error:
        raise _busy(root, "another process") from error
    finally:
        with suppress(OSError):
            (root / OWNER).unlink()
        lease.release()
        with suppress(OSError):  # new directories are removed, unless something was written into them
            for folder in new:
                folder.rmdir()


def read_owner(root: Path) -> Owner | None:
    """Return the process that holds the directory, or held it when it died; None if there is no lock."""
    try:
        found = _read_owner_of_store(root) if storage.is_remote(root) else json.loads((root / OWNER).read_text("utf-8"))
        return Owner(**found)
    except (OSError, ValueError, TypeError):
        return None


def heartbeat_age_s(root: Path) -> float | None:
    """Return the seconds since the last heartbeat of the holder; None if there is no lock."""
    return store_lease.age_s(root) if storage.is_remote(root) else _age_s(root / LOCK)


def _age_s(lock: Path) -> float | None:
    try:
        return max(0.0, time.time() - lock.stat().st_mtime)
    except OSError:
        return None


def _acquire(lease: SoftFileLease, root: Path, lease_s: float) -> None:
    wait_s, age = TRY_S, _age_s(root / LOCK)
    if age is not None and age > lease_s:
        wait_s += lease_s
        who = read_owner(root) or "another process"
        say(f"{root} is held by {who}, last heard of {_ago(age)}; waiting {lease_s:.0f} s for a sign of life")
    try:
        lease.acquire(timeout=wait_s)
    except (Timeout, LeaseSettingsMismatch) as error:
        raise _busy(root, _holder(lease)) from error


@contextmanager
def _writable(root: Path) -> Iterator[None]:
    """Raise ConfigError where this process may not write, which no second try changes."""
    try:
        with named(root / LOCK):
            yield
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        where = f"{root}, where this machine works on {storage.uri(root)}" if storage.is_remote(root) else str(root)
        setting = "ENCLAP_CACHE" if storage.is_remote(root) else "storage_path"
        raise ConfigError(
            f"{where}: cannot be written ({error.strerror}); make it writable, or name another place by {setting}"
        ) from error


def _busy(root: Path, holder: str) -> RunBusyError:
    return RunBusyError(
        f"{storage.uri(root)} is being written by {read_owner(root) or holder}; last sign of life "
        f"{_ago(heartbeat_age_s(root) or 0.0)}. Wait for it, stop it, or give this run another name"
    )


def _held_in_store(root: Path, lease_s: float) -> AbstractContextManager[None]:
    if not storage.is_remote(root):
        return nullcontext()
    lost = f"the lock of {storage.uri(root)}"
    return store_lease.held(root, asdict(_this_process()), lease_s, lambda: _stop_for(lost))


def _read_owner_of_store(root: Path) -> dict[str, Any]:
    lock = store_lease.read_lock(root)
    return {key: value for key, value in lock.items() if key in Owner.__dataclass_fields__}


def _holder(lease: SoftFileLease) -> str:
    return f"process {lease.owner.pid} on {lease.owner.hostname}" if lease.owner else "another process"


def _this_process() -> Owner:
    command = " ".join([Path(sys.argv[0]).stem, *sys.argv[1:]])  # enclap train FILE, or train FILE of python -m
    return Owner(socket.gethostname(), os.getpid(), _submission_id(), command, time.time())


def _submission_id() -> str | None:
    """Return the submission id of the Ray job that runs this process; None outside of jobs."""
    config: dict[str, Any] = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return config.get("metadata", {}).get("job_submission_id")


def _stop(loss: LeaseCompromise) -> None:
    _stop_for(f"{loss.lock_file} ({loss.reason})")


def _stop_for(lost: str) -> None:
    """End this process, from the heartbeat's thread: the lock's new owner must be the only writer."""
    print(f"error: lost {lost}; stopping, the same command resumes", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)


def _ago(seconds: float) -> str:
    return f"{spell_duration(seconds)} ago"
