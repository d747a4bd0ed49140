"""What the jobs say on the terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.text import Text

console = Console(highlight=False, soft_wrap=True)
_start = time.monotonic()


def say(message: str, style: str = "") -> None:
    """Print one line with the seconds since the start of the process."""
    console.print(Text.assemble((f"{time.monotonic() - _start:6.1f} s  ", "dim"), (message, style)))


def spell_duration(seconds: float) -> str:
    """In its largest unit: 12 s, 3 min, 5 h, 2 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
