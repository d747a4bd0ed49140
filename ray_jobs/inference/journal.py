"""What a long job has done so far, kept in a file while it works, so that the next run goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Journal:
    """JSON lines of a key and a value each; `done` has those of an interrupted run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, Any] = {}
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            if not line.endswith(b"\n"):  # the run was killed while it wrote
                break
            key, value = json.loads(line)
            self.done[key] = value
            whole += len(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def add(self, key: str, value: Any) -> None:
        """Note what is done."""
        self.done[key] = value
        self._file.write(json.dumps([key, value]).encode() + b"\n")
        self._file.flush()

    def remove(self) -> None:
        """All is done, and its result is written."""
        self._file.close()
        self.path.unlink()
