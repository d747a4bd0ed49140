"""Text that may not be valid Unicode: bytes of a file that are not UTF-8 are kept as lone surrogates."""

from __future__ import annotations

import re

WORD = re.compile(r"[^\W_]")  # what a caption or a query has at least one of: "..." says nothing


def is_unicode(text: str) -> bool:
    """Return False for text with lone surrogates: bytes of a file that are not UTF-8, or a broken escape in JSON."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fault_of(text: str) -> str:
    """Return what makes text of a file unusable, for the end of a sentence; "" where nothing does."""
    if not is_unicode(text):
        return "is not UTF-8"
    return "holds a NUL character" if "\0" in text else ""


def printable(text: str) -> str:
    """Return text that can be encoded as UTF-8: lone surrogates are written as escapes."""
    return text.encode(errors="backslashreplace").decode()
