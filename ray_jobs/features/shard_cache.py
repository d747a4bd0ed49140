"""Fetch feature shards from an object store shard by shard, ahead of their use, into a bounded part of the disk.

All processes of a node share the files in its working copy (run/storage.py). Where these take more than their bound,
those fetched the longest ago are removed; a process that has one of them mapped keeps it until it unmaps it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from rich.filesize import decimal

from ray_jobs.features.files import FeaturesError
from ray_jobs.run import storage

AHEAD = 64  # shards that are fetched before their use where the disk is not bounded
PARTS = 4  # of the bound: shards in use, shards fetched ahead, those being fetched, those removed but still mapped


class StoreUnreachableError(RuntimeError):
    """A shard could not be fetched; the message names it and its store. The same command resumes."""


class ShardCache:
    """The shards of a corpus, of which those of a store are on this node's disk only around their use."""

    def __init__(self, shards: Sequence[Path], sizes: Sequence[int], limit: int | None) -> None:
        """Take the shards, their sizes in bytes, and the bytes of disk that they may take; None for any number."""
        self.shards, self.limit = shards, limit
        self.is_remote = bool(shards) and storage.is_remote(shards[0])
        self.is_bounded = self.is_remote and limit is not None
        self.capacity = limit // PARTS // max(sizes) if self.is_bounded and limit is not None else AHEAD
        self._threads = ThreadPoolExecutor(storage.TRANSFERS)
        self._lock = Lock()
        self.expect(range(len(shards)))

    def __len__(self) -> int:
        return len(self.shards)

    def expect(self, order: Sequence[int]) -> None:
        """Say in which order shards are used from now on; each is fetched `capacity` shards before its turn."""
        with self._lock:
            self._order, self._next = order, 0
            self._place = {number: place for place, number in enumerate(order)}
            self._coming: dict[int, Future[Path]] = {}

    def require(self, shards: int, setting: str) -> None:
        """Check that the disk holds as many shards as are used at the same time.

        Raises:
            FeaturesError: naming the setting of the bound.
        """
        if self.is_bounded and self.capacity < shards:
            raise FeaturesError(
                f"{setting}: found {decimal(self.limit or 0)}, which hold {self.capacity} shards in each of {PARTS} "
                f"parts; expected room for {shards}, the shards that training.shuffle_clips draws from"
            )

    def fetch(self, number: int) -> Path:
        """Return where a shard is on this node, after fetching it if necessary.

        Raises:
            StoreUnreachableError: if it cannot be fetched.
        """
        if not self.is_remote:
            return self.shards[number]
        with self._lock:
            coming = self._coming.pop(number, None)
            self._fetch_ahead(number)
        return coming.result() if coming else self._fetch(number)

    def _fetch_ahead(self, number: int) -> None:
        """Begin to fetch the shards after this one; an epoch that is resumed does not begin with the first."""
        place = self._place.get(number, -1)
        self._next = max(self._next, place - self.capacity)
        for other in self._order[self._next : place + 1 + self.capacity]:
            if other != number:
                self._coming[other] = self._threads.submit(self._fetch, other)
        self._next = max(self._next, place + 1 + self.capacity)

    def _fetch(self, number: int) -> Path:
        shard = self.shards[number]
        try:
            local = storage.pull(shard)
        except OSError as error:
            raise StoreUnreachableError(
                f"{storage.uri(shard)}: cannot be fetched: {error}; once the store can be reached, the same command "
                "resumes"
            ) from error
        if self.is_bounded:
            _touch(local)
            self._make_room()
        return local

    def _make_room(self) -> None:
        """Remove what was fetched the longest ago, but for shards in use and fetched ahead."""
        most = 2 * (self.limit or 0) // PARTS
        folders = {storage.here(shard).parent for shard in self.shards}
        files = [file for folder in folders for file in os.scandir(folder) if file.is_file() and file.name[0] != "."]
        found = sorted((stat.st_atime_ns, stat.st_size, file.path) for file in files if (stat := _stat(file)))
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= most:
                return
            Path(path).unlink(missing_ok=True)
            total -= size


def _touch(local: Path) -> None:
    """Note when a shard was fetched; its modification time is that of the store (storage.pull)."""
    try:
        os.utime(local, ns=(time.time_ns(), local.stat().st_mtime_ns))
    except FileNotFoundError:
        return  # another process has removed it already


def _stat(file: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:
        return None
