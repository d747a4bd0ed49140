"""The bytes of a file, read where they are asked for, as they are or with some of them replaced."""

from __future__ import annotations

import io
import os
import re
import struct
import weakref
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple, overload

_WINDOW = 2**14  # bytes that are read at once: all that headers take, and many frames of MPEG
_FIRST_STEP, _LARGEST_STEP = 2**12, 2**20  # bytes that are searched at once


class Patch(NamedTuple):
    """Bytes that take the place of others in a file, and where it ends."""

    at: int
    new: bytes
    end: int


def number(form: str, data: Content, at: int) -> int:
    """Return the number at a place, of a form of the module struct."""
    return int(struct.unpack(form, data[at : at + struct.calcsize(form)])[0])


class FileBytes:
    """The bytes of a file, as far as it reaches when it is opened; slices of them are read from it.

    Mapped memory would end the process where the file becomes shorter, or its disk cannot be read.

    Args:
        path: of the file.
        patch: what takes the place of its own bytes, and where it is to end.

    Raises:
        OSError: the file cannot be opened; from a slice, it cannot be read or became shorter.
    """

    def __init__(self, path: bytes, patch: Patch | None = None) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._end = patch.end if patch else os.fstat(self._descriptor).st_size
        self._patch = patch
        self._at, self._window = 0, b""

    def __len__(self) -> int:
        return self._end

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> bytes: ...

    def __getitem__(self, key: int | slice) -> int | bytes:
        """Return the byte at a place, counted from the beginning, or those of a slice without a step."""
        if isinstance(key, int):
            return self[key : key + 1][0]
        start, stop, _ = key.indices(self._end)
        if stop - start > _WINDOW:
            return self._read(start, stop)
        if start < self._at or stop > self._at + len(self._window):
            self._window = self._read(start, min(start + _WINDOW, self._end))
            self._at = start
        return self._window[start - self._at : max(0, stop - self._at)]

    def _read(self, start: int, stop: int) -> bytes:
        read = b""
        while len(read) < stop - start:
            more = os.pread(self._descriptor, stop - start - len(read), start + len(read))
            if not more:
                raise OSError(f"it had {self._end:,} bytes and became shorter")
            read = read + more if read else more
        if self._patch:
            at, new, _ = self._patch
            first, last = max(at, start), min(at + len(new), stop)
            if first < last:
                return read[: first - start] + new[first - at : last - at] + read[last - start :]
        return read


Content = bytes | FileBytes  # of a file: read, or to be read


def as_file(data: Content) -> io.BufferedIOBase:
    """Return bytes as an open file."""
    return io.BytesIO(data) if isinstance(data, bytes) else io.BufferedReader(_Raw(data))


class _Raw(io.RawIOBase):
    """A file that ends where it cannot be read: what libsndfile's reading raised would be printed and forgotten."""

    def __init__(self, data: FileBytes) -> None:
        self._data, self._at = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._data)}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # of what BufferedReader passes
        try:
            read = self._data[self._at : self._at + len(buffer)]
        except OSError:
            return 0
        buffer[: len(read)] = read
        self._at += len(read)
        return len(read)


def matches(
    pattern: re.Pattern[bytes], data: Content, most: int, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield where a pattern matches between two places, and what, without holding all that is between them.

    Args:
        most: bytes of the longest match.
    """
    end = len(data) if end is None else end
    if isinstance(data, bytes):
        yield from ((found.start(), found[0]) for found in pattern.finditer(data, start, end))
        return
    for larger in count():
        step = min(_FIRST_STEP << larger, _LARGEST_STEP)
        for found in pattern.finditer(data[start : min(start + step + most - 1, end)]):
            if found.start() < step:
                yield start + found.start(), found[0]
        start += step
        if start >= end:
            return
