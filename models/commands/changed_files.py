"""Compare files on the disk with what an index knows of them: which are new, changed, moved or gone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..console import count
from ..ensemble.index_files import FileTable, IndexedFile
from ..errors import InputError
from ..files import sha256_of, stamp


@dataclass
class Changes:
    """Files on the disk, as against an index.

    Attributes:
        to_read: those whose content the index does not have.
        equal: those that were touched or moved, with what the index knows of them under their old stamp or name.
        unchanged: those that the index has.
        stamps: of those to read and those that are equal, from before their content was looked at.
        gone: what the index has of files that are no longer there.
    """

    to_read: list[Path] = field(default_factory=list)
    equal: dict[Path, IndexedFile] = field(default_factory=dict)
    unchanged: list[IndexedFile] = field(default_factory=list)
    stamps: dict[Path, str] = field(default_factory=dict)
    gone: list[IndexedFile] = field(default_factory=list)

    @property
    def there(self) -> int:
        """Return how many files need not be read."""
        return len(self.unchanged) + len(self.equal)


def compare(table: FileTable, files: Sequence[Path], directories: Sequence[Path], windows: str) -> Changes:
    """Compare files with an index.

    A file is only read where its size is that of one that is indexed under its name, or of one that is gone.

    Args:
        files: by their resolved paths.
        directories: resolved; what is indexed below them and not on the disk is gone.
        windows: as of `IndexedFile`, of the files to be.
    """
    changes, gone = Changes(), _gone(table, files, directories)
    moved = {file.sha256: file for file in gone if file.windows == windows and file.sha256}
    sizes = {_size(file.stamp) for file in moved.values()}
    for path in files:
        known, now = table.find(str(path)), stamp(path)
        same = known is not None and known.windows == windows
        if known and same and known.stamp == now:
            changes.unchanged.append(known)
            continue
        changes.stamps[path] = now
        touched = known is not None and same and _size(known.stamp) == _size(now)
        content = sha256_of(path) if touched or _size(now) in sizes else ""
        if known and touched and known.sha256 == content:
            changes.equal[path] = known
        elif content in moved:
            changes.equal[path] = moved.pop(content)
        else:
            changes.to_read.append(path)
    found = {file.path for file in changes.equal.values()}
    changes.gone = [file for file in gone if file.path not in found]
    return changes


def refuse_lost_directories(table: FileTable, changes: Changes, directories: Sequence[Path]) -> None:
    """Raise InputError if all files of a directory are gone that the index has, as where a disk is not mounted."""
    for directory in directories:
        if gone := [file for file in changes.gone if _below(file, directory)]:
            indexed = sum(_below(file, directory) for file in table.present())
            if len(gone) == indexed:
                raise InputError(
                    f"{directory}: all of the {count(indexed, 'file')} that the index has of it are gone; if that is "
                    "meant, and not a disk that is not mounted, say --remove-gone"
                )


def _gone(table: FileTable, files: Sequence[Path], directories: Sequence[Path]) -> list[IndexedFile]:
    found = {str(path) for path in files}
    return [
        file
        for file in table.present()
        if file.path not in found
        and any(_below(file, directory) for directory in directories)
        and not _is_there(file.path)
    ]


def _is_there(path: str) -> bool:
    """Return whether a file is at its resolved path, or may be: in a folder that must not be read, on a lost disk."""
    try:
        return os.path.realpath(path, strict=True) == path
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _below(file: IndexedFile, directory: Path) -> bool:
    return file.path == str(directory) or file.path.startswith(os.path.join(directory, ""))


def _size(stamp: str) -> str:
    return stamp.partition(":")[0]
