"""Print to people: results on standard output, everything that is said about the work on standard error."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text
from tqdm import tqdm

from .errors import InputError, named

# Names, captions and messages are printed as they are: rich would read [brackets] and :colons: in them as its own.
AS_IT_IS: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
STDOUT_NAME = "standard output"  # in errors, such as that of a full disk
LOG_S = 10.0  # seconds between the lines of a progress bar where no terminal redraws it
PIPE_WIDTH = 10_000  # characters; rich takes 80 where there is no terminal, and cuts cells
# tqdm's own would turn a rate below one into seconds a unit.
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt} of {total_fmt}{unit}, {rate_noinv_fmt}, {remaining} left"
console = Console(**AS_IT_IS)  # results, which may be piped
messages = Console(**AS_IT_IS, stderr=True)
UNITS = {"d": 86400, "h": 3600, "min": 60}
_start = time.monotonic()
_subject = ContextVar("_subject", default="")  # what this thread speaks of


def open_closed_streams() -> None:
    """Give this process standard streams that lead nowhere in place of those that it was started without.

    Daemons and cron may close them. Python then has None, which libraries do not expect, and the next file that is
    opened would get the number of a stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 as long as the process


def refuse_closed_output() -> None:
    """Refuse, before work is done, to print results where nobody would see them.

    Raises:
        InputError: if this process was started with its standard output closed.
    """
    if getattr(sys.stdout, "name", None) == os.devnull:  # of `> /dev/null` the name is <stdout>
        raise InputError(
            f"{STDOUT_NAME}: found it closed, and the results would be printed there; let it lead somewhere, or let "
            "the command write a file"
        )


def show(table: RenderableType) -> None:
    """Print a table or a line to standard output: within the width of a terminal, and whole where it is piped."""
    with named(STDOUT_NAME):
        (console if console.is_terminal else Console(**AS_IT_IS, width=PIPE_WIDTH)).print(table)


def say(message: str, style: str = "") -> None:
    """Print one line about the work, with the seconds since the start of the process, to standard error."""
    messages.print(Text.assemble((f"{time.monotonic() - _start:6.1f} s  {_subject.get()}", "dim"), (message, style)))


@contextmanager
def speaking_of(subject: str) -> Iterator[None]:
    """Begin the lines of `say` with what they are about, for this thread: others speak of other things."""
    before = _subject.set(f"{subject}  ")
    try:
        yield
    finally:
        _subject.reset(before)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: 1 member, 2 members."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def progress_bar(total: int, unit: str, what: str, shown: bool = True) -> Any:
    """Return a tqdm bar on stderr, with units a second and the time that is left: redrawn in a terminal, and a line
    every ten seconds in a log.
    """
    terminal = sys.stderr.isatty()
    interval = 1.0 if terminal else LOG_S
    options = {"unit": f" {unit}", "desc": what, "bar_format": BAR, "mininterval": interval, "leave": not terminal}
    return tqdm(total=total, disable=not shown, **options)


def spell_duration(seconds: float) -> str:
    """Return a duration in its largest unit: 12 s, 3 min, 5 h, 2 d."""
    return next((f"{seconds / size:.0f} {unit}" for unit, size in UNITS.items() if seconds >= size), f"{seconds:.0f} s")


def spell_exactly(seconds: float) -> str:
    """Return a duration in its largest two units: 12 s, 3 min 20 s, 1 h 52 min, 2 d 3 h."""
    left, parts = round(seconds), list[str]()
    for unit, size in {**UNITS, "s": 1}.items():
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"
