"""Set a clip aside that ends every process that reads it, as a fault in a decoder's native code does.

Ray Data begins the work of a process that died again, without end, as it cannot know of a fault from a lost node.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from models.audio import AudioError

MOST = 2  # a clip may be read while a node is lost, but hardly twice


class ReadingRecord:
    """A file that says which clip of a shard is being read, and how many processes ended while they read it."""

    def __init__(self, shard: Path) -> None:
        self._path = shard.with_name(f".{shard.name}.reading.partial")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._clip, self._ended = "", 0
        with suppress(OSError, TypeError, ValueError):  # there is none, or it was cut by that end
            self._clip, self._ended = json.loads(self._path.read_text())

    def begin(self, path: str) -> None:
        """Note that a clip is being read.

        Raises:
            AudioError: the processes that read it before ended, and so would this one.
        """
        ended = self._ended if path == self._clip else 0
        if ended >= MOST:
            raise AudioError(
                f"{path}: {ended} processes ended while they read it (a fault in its decoder, or too little memory); "
                "convert it to FLAC"
            )
        self._path.write_text(json.dumps([path, ended + 1]))

    def end(self) -> None:
        """Note that the last clip was read."""
        self._path.unlink(missing_ok=True)
