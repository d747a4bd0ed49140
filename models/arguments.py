"""Check the arguments that programs pass: each that cannot be used is an error that names it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from os import PathLike
from typing import Any, TypeVar

import numpy as np

from .errors import InputError
from .normal_form import normal_form
from .text import is_unicode

T = TypeVar("T")
LARGEST_SEED = 2**63 - 1  # of torch


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return an argument that is a whole number within bounds; no truth value, and no float.

    Raises:
        InputError: naming the argument.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name}: found {value!r}, expected a whole number, {limits}")
    return int(value)


def texts(name: str, values: Iterable[str]) -> list[str]:
    """Return an argument that is a list of texts, or of paths; a single one is not.

    Raises:
        InputError: naming the argument, and the place of what is no text.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InputError(f"{name}: found one {type(values).__name__}, expected a list of texts; put it in brackets")
    listed = list(values)
    for place, value in enumerate(listed, 1):
        if not isinstance(value, str | PathLike):
            raise InputError(f"{name}: found {type(value).__name__} in place {place} of {len(listed)}, expected a text")
    return [str(value) for value in listed]


def words(name: str, values: Iterable[str]) -> list[str]:
    """Return an argument that is a list of texts, none of them blank; errors as of `texts`, and for the first blank."""
    listed = texts(name, values)
    for place, value in enumerate(listed, 1):
        if not normal_form(value):
            raise InputError(f"{name}: the text in place {place} of {len(listed)} is blank, expected words")
        if not is_unicode(value):
            raise InputError(f"{name}: the text in place {place} of {len(listed)} is not Unicode: {value!r}")
    return listed


def check_seed(seed: int | None) -> None:
    """Raise InputError unless a seed is None or a whole number that random streams can begin with."""
    if seed is not None:
        whole_number("seed", seed, 0, LARGEST_SEED)


def batched(items: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    """Yield items in lists of `batch_size`, the last one of what is left.

    Raises:
        InputError: `batch_size` is no whole number above 0.
    """
    number, rest = min(whole_number("batch_size", batch_size, 1), sys.maxsize), iter(items)
    while batch := list(islice(rest, number)):
        yield batch


def check_int8(dtype: str | None, int8: bool) -> None:
    """Check that 8-bit integers are not asked for together with another number type.

    Raises:
        InputError: if they are.
    """
    if int8 and dtype not in (None, "fp32"):
        raise InputError(f"int8: found together with dtype {dtype!r}, expected one of them")
