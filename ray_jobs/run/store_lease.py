"""Lock a run in an object store: an object that names the owner and is rewritten as long as the owner lives.

This is weaker than the lock of a directory. pyarrow cannot ask a store to write an object only if there is none, so two
jobs that start at the same moment may both write it. Each waits `SETTLE_S` and reads it again, so that all but the last
to write give up; a slow request can still let two through. Every beat reads before it writes, so two owners coexist no
longer than a beat: the one that was overwritten is stopped. Until then both have written the run. Two jobs on one node,
with one cache, exclude each other exactly, by the lock of the working copy (lock.py).
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from models.files import write_json
from ray_jobs.run import storage

LOCK = ".lock.json"
BEATS = 4  # per lease, the seconds after which a silent owner is taken for dead
SETTLE_S = 2.0  # seconds between writing the lock and reading it again


class StoreBusyError(RuntimeError):
    """Another process holds the run."""


def read_lock(root: Path) -> dict[str, Any]:
    """Return what the owner wrote; empty if there is no lock."""
    try:
        return json.loads(storage.read_text(root / LOCK))
    except (FileNotFoundError, ValueError):
        return {}


def age_s(root: Path) -> float | None:
    """Return the seconds since the owner's last beat, by this clock and the store's; None if there is no lock."""
    at = storage.written_at(root / LOCK)
    return None if at is None else max(0.0, time.time() - at)


@contextmanager
def held(root: Path, owner: dict[str, Any], lease_s: float, on_loss: Callable[[], None]) -> Iterator[None]:
    """Hold the run during the block.

    Args:
        on_loss: called in another thread when another owner is found in the lock.

    Raises:
        StoreBusyError: if another process holds it.
    """
    token = secrets.token_hex(8)
    lock = owner | {"token": token, "beat": 0}
    _wait_for_the_dead(root, lease_s)
    _write(root, lock)
    time.sleep(SETTLE_S)
    if not _is_ours(root, token):
        raise StoreBusyError
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(root, lock, lease_s / BEATS, ended, on_loss), daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        with suppress(OSError):  # a store that cannot be reached keeps the lock until it expires
            if _is_ours(root, token):
                storage.remove(root / LOCK)


def _wait_for_the_dead(root: Path, lease_s: float) -> None:
    """Return when nobody holds the run; watch the lock of an owner that seems dead, as clocks need not agree."""
    before, age = read_lock(root), age_s(root)
    if not before or _has_died_here(before):
        return
    if age is not None and age < lease_s:
        raise StoreBusyError
    end = time.monotonic() + lease_s
    while (now := read_lock(root)) and time.monotonic() < end:
        if now != before:
            raise StoreBusyError
        time.sleep(lease_s / BEATS / 2)


def _has_died_here(lock: dict[str, Any]) -> bool:
    """Return whether the owner was a process of this host that has ended."""
    if lock.get("host") != socket.gethostname():
        return False
    try:
        os.kill(lock["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _beat(
    root: Path, lock: dict[str, Any], every_s: float, ended: threading.Event, on_loss: Callable[[], None]
) -> None:
    while not ended.wait(every_s):
        try:
            if not _is_ours(root, lock["token"]):
                on_loss()
                return
            lock = lock | {"beat": lock["beat"] + 1}
            _write(root, lock)
        except OSError:
            continue  # the store cannot be reached; the next beat shows whether another owner came meanwhile


def _is_ours(root: Path, token: str) -> bool:
    return read_lock(root).get("token") == token


def _write(root: Path, lock: dict[str, Any]) -> None:
    write_json(root / LOCK, lock)
    storage.push(root / LOCK)
