"""The base class of the errors that a user's input causes, and what makes those of the system say where they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .text import printable


class InputError(Exception):
    """A file, setting or argument cannot be used; the message names it, what was found and what was expected.

    Commands end with exit code 2, and no work is lost.
    """


class AudioError(InputError, ValueError):
    """An audio file cannot be used; the message names the file and says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CorpusError(InputError, ValueError):
    """A corpus, or a file of captions, cannot be used; the message names the file, what was found and expected."""

    def __init__(self, message: str) -> None:
        # What it quotes may not be UTF-8; the message is, so that it can be printed.
        super().__init__(printable(message))


class TooFewClipsError(InputError, ValueError):
    """There are fewer clips than a value or a choice needs; the message says how many and what needs them."""


class QueryError(InputError, ValueError):
    """A query cannot be answered: it is blank, or there is nothing to search in."""


@contextmanager
def named(path: Path | str) -> Iterator[None]:
    """Let an error of the system name the file that is written where it names none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
