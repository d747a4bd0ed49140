"""Write files and directories atomically: readers see the old or the new, never a part of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from rich.filesize import decimal

from .errors import InputError, named


class CheckpointError(InputError, ValueError):
    """A member's directory cannot be loaded; the message names the file, what was found and what was expected."""


GIT_LFS = b"version https://git-lfs.github.com/spec/"  # what a clone without Git LFS has in place of a file
KIND_BYTES = 512  # of the beginning, that tell what a file is which is found in place of another
_KINDS = {  # by the first bytes; of texts in lower case
    b"<!doctype html": "a web page (HTML)",
    b"<html": "a web page (HTML)",
    b"<?xml": "an XML text",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)",
    b"PAR1": "a Parquet file",
    b"%PDF-": "a PDF document",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG\r\n": "a PNG picture",
}
_TAR = 257, b"ustar"  # where a tar archive has its mark


def sha256_of(path: Path) -> str:
    """Return the SHA-256 checksum of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> str:
    """Return the size and modification time of a file, which change when its content does."""
    status = path.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"


def missing(path: Path) -> str:
    """Return what is in the place of a file that is not there, for messages."""
    return "found a directory, expected a file" if path.is_dir() else "no such file"


def refuse_unreadable(path: Path, refuse: type[InputError] = CheckpointError) -> None:
    """Refuse a file that this user may not read, of which libraries say other things, such as that it is not there.

    Args:
        refuse: the class of the error.
    """
    try:
        path.open("rb").close()
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise refuse(f"{path}: cannot be read ({error.strerror}); let its owner make it readable for you") from error


def refuse_stand_in(path: Path, expected: str, refuse: type[InputError], name: str = "") -> None:
    """Refuse a file that an interrupted download, or a clone without Git LFS, left without its content.

    Args:
        expected: what it should hold, for the message.
        refuse: the class of the error.
        name: of the file in the message; its path when left out.
    """
    with path.open("rb") as file:
        start = file.read(len(GIT_LFS))
    if not start:
        raise refuse(f"{name or path}: found an empty file, expected {expected}; copy or download it again")
    refuse_pointer(start, name or path, expected, refuse)


def refuse_pointer(content: bytes | str, name: Path | str, expected: str, refuse: type[InputError]) -> None:
    """Refuse the content of a file that a clone without Git LFS left in its place; arguments as `refuse_stand_in`."""
    start = content[: len(GIT_LFS)]
    if (start if isinstance(start, bytes) else start.encode(errors="replace")) == GIT_LFS:
        raise refuse(
            f"{name}: found a pointer of Git LFS, expected the {expected} that it stands for; get it with "
            "`git lfs pull` in the clone that it is from"
        )


def known_kind(start: bytes) -> str | None:
    """Return in words what a file is that is often found in place of another, by its first bytes; None if none."""
    at, mark = _TAR
    if start[at:].startswith(mark):
        return "a tar archive"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for begins, kind in _KINDS.items() if start.startswith(begins) or text.startswith(begins)), None)


def is_device(path: Path) -> bool:
    """Return whether a path leads to what is neither a file nor a directory: a device or a pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def room_left(path: Path) -> str:
    """Return how much is left of the disk that a file is to be on, for messages."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    return f"{decimal(shutil.disk_usage(folder).free)} free at {folder}"


@contextmanager
def _named_as(path: Path, partial: Path) -> Iterator[None]:
    """Let an error of the system name `path` where it names nothing, or what is written until `path` is replaced."""
    try:
        with named(path):
            yield
    except OSError as error:
        for side in ("filename", "filename2"):
            file = getattr(error, side)
            if isinstance(file, str | Path) and Path(file).is_relative_to(partial):
                setattr(error, side, str(path / Path(file).relative_to(partial)))
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block succeeds and it is on the disk.

    A loss of power leaves the old or the new content, and no zeros in its place. After an error the old file stays and
    the temporary one is removed. Missing directories are created. A link stays, and the file that it leads to is
    written; so does a device, such as /dev/null, to which the file is copied. An error of the system names `path`.
    """
    if is_device(path):
        with TemporaryDirectory() as folder:
            yield Path(folder, path.name)
            with named(path), Path(folder, path.name).open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
        return
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _named_as(path, partial):
            yield partial
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside `path`, which takes the place of `path` when the block succeeds.

    After an error the old directory stays and the new one is removed. No reader sees a part of either; between the two
    renames there is none for a moment. Missing parent directories are created. An error of the system names the file
    as it would be in `path`.
    """
    partial, old = (path.with_name(f".{path.name}.{os.getpid()}.{what}") for what in ("partial", "old"))
    for leftover in (partial, old):  # of a killed process that had the same id
        shutil.rmtree(leftover, ignore_errors=True)
    with _named_as(path, partial):
        partial.mkdir(parents=True)
    try:
        with _named_as(path, partial):
            yield partial
        if path.exists():
            path.rename(old)
        try:
            partial.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
    finally:
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)


def copy_directory(
    source: Path,
    target: Path,
    ignore: Callable[[str, list[str]], Iterable[str]] | None = None,
    copy: Callable[[Path, Path], Any] = shutil.copy2,
) -> None:
    """Copy what is in a directory into another one, which may be there already, and follow links.

    Unlike shutil.copytree it ends at the first error, such as that of a full disk, and raises it as it is.

    Args:
        ignore: returns which names of a directory are left out, such as shutil.ignore_patterns(...).
        copy: makes one file of another.

    Raises:
        OSError: the system's, naming the files.
    """
    target.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in source.iterdir())
    left_out = {*ignore(str(source), names)} if ignore else set()
    for name in names:
        if name in left_out:
            continue
        if (source / name).is_dir():
            copy_directory(source / name, target / name, ignore, copy)
        else:
            with named(target / name):
                copy(source / name, target / name)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, atomically."""
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON, atomically."""
    write_bytes(path, _json(content, indent=2))


def write_lines(path: Path, lines: Iterable[Any]) -> None:
    """Write JSON lines, atomically."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        file.writelines(map(_json, lines))


def _json(content: Any, indent: int | None = None) -> bytes:
    """Return a line of JSON in UTF-8; what of a file's name is not UTF-8 as the escapes that JSON has for it."""
    return (json.dumps(content, indent=indent, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz, atomically."""
    with atomic_write(path) as partial, partial.open("wb") as file:  # savez appends .npz to a path
        np.savez(file, **arrays)  # type: ignore[arg-type]


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a Parquet file, atomically."""
    with atomic_write(path) as partial:
        frame.to_parquet(partial)
