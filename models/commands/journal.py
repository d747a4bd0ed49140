"""Keep the results of a long job in a file while it works, so that an interrupted one goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import named


class Journal:
    """A file of JSON lines, each a key and a value; `done` has those of an interrupted run.

    A last line that a killed run wrote only in part is dropped, and so is all from a line on that cannot be read, or
    whose value is none of those that are written.
    """

    def __init__(self, path: Path, is_value: Callable[[Any], bool] = lambda _: True) -> None:
        self.path = path
        self.done: dict[str, Any] = {}
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            if not line.endswith(b"\n"):  # the run was killed while it was writing
                break
            try:
                key, value = json.loads(line)
                if not (isinstance(key, str) and is_value(value)):
                    break
                self.done[key] = value
            except (TypeError, ValueError, RecursionError):
                break  # such as zeros, where the machine went down before the disk had the line
            whole += len(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def add(self, key: str, value: Any) -> None:
        """Keep the value of a key."""
        self.done[key] = value
        with named(self.path):
            self._file.write(json.dumps([key, value]).encode() + b"\n")
            self._file.flush()

    def remove(self) -> None:
        """Delete the file, once the job's result is written."""
        self._file.close()
        self.path.unlink()
