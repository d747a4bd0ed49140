"""The base class of the errors that a user's input causes."""

from __future__ import annotations


class InputError(Exception):
    """A file, setting or argument cannot be used; the message names it, what was found and what was expected.

    Commands end with exit code 2, and no work is lost.
    """


class TooFewClipsError(InputError, ValueError):
    """There are fewer clips than a value or a choice needs; the message says how many and what needs them."""
