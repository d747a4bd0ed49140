"""Append events to a member's log of JSON lines."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from models.errors import named
from ray_jobs.run import storage

LOG = "log.jsonl"  # in a member's directory


def tell(member: Path, event: str, **details: Any) -> None:
    """Append an event and its details to the log in a member's directory."""
    line = {"time": time.time(), "host": socket.gethostname(), "member": member.name, "event": event, **details}
    path = storage.here(member / LOG)
    if storage.exists(path):
        storage.pull(path)  # another node may have written the last line
    path.parent.mkdir(parents=True, exist_ok=True)
    with named(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    storage.push(path)
