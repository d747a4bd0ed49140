"""Give commands their outputs: data on standard output, and files that no other process writes meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import is_zipfile

from filelock import FileLock, Timeout

from ..console import STDOUT_NAME
from ..ensemble.checksums import MANIFEST
from ..errors import InputError, named
from ..files import atomic_write, is_device, write_text

if TYPE_CHECKING:
    import pandas as pd

STDOUT = Path("-")
RUN = "experiment.yaml"  # in every run directory: what it was made from
OF_RUN = (
    RUN, "time_used.json", "features/*", "members/*", "search/*", "sweep/*", "ensemble/*", "ensemble-*/*", "bundle/*",
    "bundle-*/*", "checkpoints/*", "tensorboard/*", "report/index.html", "report/clips.html", "report/clips/*",
)  # fmt: skip


def print_data(line: str) -> None:
    """Print a line as it is: no markup, no wrapping, tabs kept; the bytes of a file name that is not Unicode, too."""
    _print_bytes(os.fsencode(line) + b"\n")


def _print_bytes(data: bytes) -> None:
    with named(STDOUT_NAME):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def write_data(path: Path, lines: Iterable[str]) -> None:
    """Write lines to a file, atomically, as `print_data` prints them."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        file.writelines(os.fsencode(line) + b"\n" for line in lines)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV to a file, atomically, or to standard output where the path is `-`."""
    text = frame.to_csv(index=False, lineterminator="\n")
    if path == STDOUT:
        _print_bytes(text.encode())
    else:
        write_text(path, text)


def check_outputs(csv: Path | None, as_json: bool) -> None:
    """Check that not two outputs of a command are standard output.

    Raises:
        InputError: if both are.
    """
    if as_json and csv == STDOUT:
        raise InputError("--json and --csv -: both print to standard output; give --csv a file")


@contextmanager
def reserved(outputs: Mapping[str, Path | None], inputs: Iterable[Path] = ()) -> Iterator[None]:
    """Keep the files that a command will write for this process, from before its work until they are written.

    Missing directories are made. Devices, such as /dev/null, may be written by many.

    Args:
        outputs: by the option that names them; None where it does not.
        inputs: files that are read, and must not be written.

    Raises:
        InputError: naming the option, if a file is a directory, cannot be written, is read or written otherwise by the
            same command, is a part of a bundle or a run, or is being written by another process.
    """
    taken = {path.resolve(): "is one of the files to read" for path in inputs}
    with ExitStack() as held:
        for option, path in outputs.items():
            if path is None or is_device(path):
                continue
            if path.is_dir():
                raise InputError(f"{option} {path}: is a directory, expected a file")
            if found := taken.get(path.resolve()):
                raise InputError(f"{option} {path}: {found}; name another file")
            refuse_part(option, path)
            taken[path.resolve()] = f"is the file of {option}, too"
            held.enter_context(_locked(option, path))
        yield


def refuse_part(option: str, path: Path) -> None:
    """Refuse an output that would be a part of a bundle, or of what a run keeps; charts may lie beside its report.

    Raises:
        InputError: naming the option.
    """
    if path.is_file() and is_zipfile(path):
        raise InputError(f"{option} {path}: is an archive, such as that of a bundle; name another file")
    resolved = path.resolve()
    for folder in (resolved, *resolved.parents):
        if os.path.isfile(folder / MANIFEST):  # False as well where a folder must not be looked into
            raise InputError(f"{option} {path}: is in the bundle {folder}, which stays as it is; name another file")
        if folder != resolved and _is_run(folder):
            inner = resolved.relative_to(folder).as_posix()
            if any(fnmatch(inner, pattern) for pattern in OF_RUN):
                raise InputError(f"{option} {path}: is a part of the run {folder}; name another file")


def _is_run(folder: Path) -> bool:
    """Return whether a directory has the record of a run, and not an experiment file of that name."""
    record = folder / RUN
    if not os.path.isfile(record) or not os.access(record, os.R_OK):
        return False
    with record.open("rb") as file:
        return file.readline().rstrip() == b"experiment:"


@contextmanager
def _locked(option: str, path: Path) -> Iterator[None]:
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        if not Path(lock.lock_file).exists():  # nobody has it: it cannot be made
            raise InputError(f"{option} {path}: cannot be written; name another file") from error
        raise InputError(
            f"{option} {path}: another process is writing it; wait for it, or name another file"
        ) from error
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be written ({error.strerror}); name another file") from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone
        lock.release()
