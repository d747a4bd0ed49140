"""Guess which name was meant by a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(found: object, known: Iterable[str]) -> str:
    """Return the end of a message with the known name that is nearest to the one found; empty where none is near."""
    nearest = difflib.get_close_matches(str(found), list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def unknown(found: object, known: Iterable[object], of: str) -> str:
    """Return a message about a name that is not among the known ones, which together are called `of`.

    Keys of a file are known as they stand there, which may be numbers.
    """
    names = list(map(str, known))
    return f"{found!r} is not among {of} ({', '.join(names) or 'none'}){did_you_mean(found, names)}"
