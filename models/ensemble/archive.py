"""A bundle as one file: a zip archive of uncompressed members, unpacked once, after its sums are checked.

The same bundle gives the same bytes. Nothing of an archive is written outside its place in the cache: only files that
MANIFEST.json lists are unpacked, and links are none of them. What is lost or cut there is unpacked again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from filelock import FileLock

from ..errors import InputError
from ..files import CheckpointError, atomic_directory, atomic_write, refuse_stand_in
from .checksums import (
    FILES,
    Checked,
    Opener,
    check,
    is_inside,
    parse_list,
    read_list,
    refuse_faults,
    refuse_pickles,
)

EXPECTED = "expected a directory, or a zip archive that `enclap export --archive` wrote"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows: times of files are no part of a bundle
LARGEST_LIST = 2**24  # bytes of MANIFEST.json
# What zipfile raises, depending on which bytes are wrong: an offset before the file, a version that it does not know.
DAMAGE = (BadZipFile, EOFError, NotImplementedError, OSError, OverflowError, ValueError)


def write_archive(bundle: Path, archive: Path) -> None:
    """Write what MANIFEST.json of a bundle lists, and the list itself, into one file, without the index."""
    with atomic_write(archive) as partial, ZipFile(partial, "w", ZIP_STORED) as file:
        for name in sorted([FILES, *read_list(bundle)]):
            info = ZipInfo(name, EPOCH)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.file_size = (bundle / name).stat().st_size  # says whether 64 bits are needed for its size
            with (bundle / name).open("rb") as source, file.open(info, "w") as target:
                shutil.copyfileobj(source, target, 2**20)


def unpacked(bundle: Path) -> Path:
    """Return the directory of a bundle: its own, or where its archive is unpacked.

    That is `$ENCLAP_CACHE/bundles/`, `~/.cache/enclap/bundles/` by default, in a folder named after the checksums of
    all files. What is there already in its size is not unpacked again; an index that is saved stays there.

    Raises:
        CheckpointError: if the file is no such archive, is damaged or cut, or holds pickles, links, compressed files or
            paths that lead outside.
        InputError: if it cannot be unpacked there.
    """
    if not bundle.is_file():
        return bundle
    with _opened(bundle) as archive:
        content = _list_in(bundle, archive)
        listed, files = parse_list(content, bundle / FILES), _files_in(bundle, archive)
        target = _cache() / hashlib.sha256(content).hexdigest()[:32]
        sizes = {name: one.bytes for name, one in listed.items()} | {FILES: len(content)}
        with _writing(target):
            whole = not _lost(target, sizes)
        if not whole:
            refuse_faults(bundle, check(files, listed))
            with _writing(target):
                _unpack(files, sizes, target)
    return target


def check_archive(bundle: Path) -> Checked:
    """Compare the files in an archive with MANIFEST.json in it; errors as of `unpacked`."""
    with _opened(bundle) as archive:
        return check(_files_in(bundle, archive), parse_list(_list_in(bundle, archive), bundle / FILES))


def _unpack(files: Mapping[str, Opener], sizes: Mapping[str, int | None], target: Path) -> None:
    """Write what of files in an archive is not in a directory in its size; all of it at once if there is none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):  # processes of one user may start together
        if target.is_dir():  # in place: it may have an index
            for name in _lost(target, sizes):
                _copy(files[name], target / name)
        else:
            with atomic_directory(target) as folder:
                for name in sizes:
                    _copy(files[name], folder / name)


def _copy(opened: Opener, target: Path) -> None:
    with atomic_write(target) as partial, opened() as source, partial.open("wb") as written:
        shutil.copyfileobj(source, written, 2**20)


def _lost(directory: Path, sizes: Mapping[str, int | None]) -> list[str]:
    """Return which files are not in a directory in their sizes, without reading any."""
    there = {name: directory / name for name in sizes if (directory / name).is_file()}
    return [name for name, size in sizes.items() if name not in there or size not in (None, there[name].stat().st_size)]


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{target}: the archive cannot be unpacked there ({error.strerror or error}); make room, or let "
            "ENCLAP_CACHE name a directory that can be written"
        ) from error


@contextmanager
def _opened(bundle: Path) -> Iterator[ZipFile]:
    try:
        refuse_stand_in(bundle, "archive of a bundle", CheckpointError)
        with ZipFile(bundle) as archive:
            yield archive
    except InputError:
        raise
    except DAMAGE as error:
        advice = "copy it again" if bundle.suffix == ".zip" else "is it given in the place of another argument?"
        raise CheckpointError(f"{bundle}: no whole zip archive ({error}); {EXPECTED}; {advice}") from error


def _list_in(bundle: Path, archive: ZipFile) -> bytes:
    if FILES not in archive.namelist() or archive.getinfo(FILES).file_size > LARGEST_LIST:
        raise CheckpointError(f"{bundle}: found no {FILES} at the top of the archive; {EXPECTED}")
    _refuse_unsafe(bundle, archive)
    return archive.read(FILES)


def _files_in(bundle: Path, archive: ZipFile) -> dict[str, Opener]:
    refuse_pickles(bundle, archive.namelist())
    return {info.filename: functools.partial(archive.open, info) for info in archive.infolist()}


def _refuse_unsafe(bundle: Path, archive: ZipFile) -> None:
    """Refuse what `write_archive` does not write: a link, a folder, a file that is compressed or there twice."""
    names = set[str]()
    folders = {str(folder) for name in archive.namelist() for folder in PurePosixPath(name).parents}
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        found = (
            "no plain file" if kind not in (0, stat.S_IFREG)
            else "a compressed or encrypted file" if info.compress_type != ZIP_STORED or info.flag_bits & 1
            else "a file that is there twice" if info.filename in names
            else "a file and a folder" if info.filename in folders
            else "no name of a file in a bundle" if not is_inside(info.filename)
            else None
        )  # fmt: skip
        if found:
            raise CheckpointError(f"{bundle}: {info.filename[:100]!r} is {found}; {EXPECTED}")
        names.add(info.filename)
    if sum(info.file_size for info in archive.infolist()) > bundle.stat().st_size:
        raise CheckpointError(f"{bundle}: its files overlap: they are larger than the archive; {EXPECTED}")


def _cache() -> Path:
    return Path(os.environ.get("ENCLAP_CACHE") or Path.home() / ".cache" / "enclap").resolve() / "bundles"
