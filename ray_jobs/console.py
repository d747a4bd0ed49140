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
