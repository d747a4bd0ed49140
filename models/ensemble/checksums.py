"""List the files of a bundle in MANIFEST.json, and find those that are damaged, missing or pickled.

Bundles of earlier versions have SHA256SUMS instead. Both find damage, not malice: who changes a file can change its
sum.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints

from ..files import CheckpointError, refuse_unreadable, sha256_of, write_json
from ..records import parse_record
from ..text import printable

FILES = "MANIFEST.json"
SUMS = "SHA256SUMS"  # of earlier versions
MANIFEST = "bundle.json"  # without which there is no bundle
FORMAT = 1
AGAIN = "copy or export the bundle again"
LONGEST = 200  # bytes of a file's or folder's name: file systems take 255, `atomic_write` puts some around it
# What torch, pickle and joblib write by default: reading it can run code of the file's choice.
PICKLED = {".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
_LINE = re.compile(r"(?P<sum>[0-9a-f]{64}) [ *](?P<name>.+)")
Opener = Callable[[], IO[bytes]]


class ListedFile(BaseModel):
    """A file as it was exported."""

    model_config = ConfigDict(extra="forbid")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[StrictInt, Field(ge=0)] | None = None  # SHA256SUMS has no sizes


class FileList(BaseModel):
    """MANIFEST.json: every file of the export but itself, by its name in the bundle."""

    model_config = ConfigDict(extra="forbid")
    format: int = FORMAT
    files: dict[str, ListedFile]


@dataclass(frozen=True)
class Checked:
    """The files of a bundle that are as they were exported, and those that are not, by their names in it."""

    intact: list[str]
    changed: list[str]
    missing: list[str]
    unlisted: list[str]  # beside what was exported, but for the index and hidden files


def write_sums(bundle: Path, names: Iterable[str]) -> None:
    """Write MANIFEST.json, of files given by their names in the bundle; of itself it has none."""
    files = {
        name: ListedFile(sha256=sha256_of(bundle / name), bytes=(bundle / name).stat().st_size)
        for name in sorted({*names} - {FILES})
    }
    write_json(bundle / FILES, FileList(files=files).model_dump())


def read_sums(bundle: Path) -> dict[str, str]:
    """Return the sums of the files that a bundle was exported with, by their names in it; errors as of `read_list`."""
    return {name: listed.sha256 for name, listed in read_list(bundle).items()}


def read_list(bundle: Path) -> dict[str, ListedFile]:
    """Return the files that a bundle was exported with, by their names in it.

    Raises:
        CheckpointError: if it has neither MANIFEST.json nor SHA256SUMS, or its list is damaged, of a newer format,
            names a file outside, or does not name bundle.json.
    """
    if (path := bundle / FILES).is_file():
        return parse_list(path.read_bytes(), path)
    if (path := bundle / SUMS).is_file():
        return _whole(_parse_lines(path), path)
    raise CheckpointError(f"{bundle / FILES}: no such file; expected a bundle made by `enclap export`, as a whole")


def parse_list(content: bytes, path: Path | str) -> dict[str, ListedFile]:
    """Return what MANIFEST.json lists; errors as of `read_list`.

    Args:
        path: of the file, for messages.
    """
    remedy = f"{AGAIN}, or use the version that made it"
    files = parse_record(FileList, content, path, remedy, FORMAT).files
    if outside := [name for name in files if not is_inside(name)]:
        raise CheckpointError(f"{path}: found {outside[0][:100]!r}, expected names of files in the bundle; {AGAIN}")
    return _whole(files, path)


def _whole(files: dict[str, ListedFile], path: Path | str) -> dict[str, ListedFile]:
    if MANIFEST not in files:
        raise CheckpointError(f"{path}: {MANIFEST} is not listed, expected all files of the export; {AGAIN}")
    return files


def _parse_lines(path: Path) -> dict[str, ListedFile]:
    files = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        found = _LINE.fullmatch(line)
        if not found or not is_inside(found["name"]):
            raise CheckpointError(
                f"{path}: line {number}: found {line[:100]!r}, expected a SHA-256 sum, two spaces and the name of a "
                f"file in the bundle; {AGAIN}"
            )
        files[found["name"]] = ListedFile(sha256=found["sum"])
    return files


def is_inside(name: str) -> bool:
    """Return whether a name is one that a file in the bundle can have, on every system."""
    parts = PurePosixPath(name).parts
    plain = bool(parts) and name == "/".join(parts) and ".." not in parts and not {*name} & {"\\", ":", "\0"}
    return plain and printable(name) == name and all(len(part.encode()) <= LONGEST for part in parts)


def check_sums(bundle: Path, beside: Iterable[str] = ()) -> Checked:
    """Compare the files of a bundle with what it was exported with.

    Args:
        beside: directories in the bundle that are not of the export, such as the index.
    """
    return check(files_in(bundle, beside), read_list(bundle))


def check(files: Mapping[str, Opener], listed: Mapping[str, ListedFile]) -> Checked:
    """Compare files, by their names in a bundle, with what it was exported with."""
    missing = [name for name in listed if name not in files]
    changed = [name for name, one in listed.items() if name in files and _sum(files[name]) != one.sha256]
    others = sorted(name for name in files if name not in {*listed, FILES, SUMS})
    return Checked([name for name in listed if name not in {*missing, *changed}], changed, missing, others)


def refuse_faults(bundle: Path, found: Checked, remedy: str = AGAIN) -> None:
    """Raise CheckpointError if files of a bundle are changed or missing, naming all of them and what to do."""
    faults = [f"{name}: missing" for name in found.missing] + [f"{name}: changed" for name in found.changed]
    if faults:
        number, named = len(faults) + len(found.intact), "\n  ".join(faults)
        raise CheckpointError(
            f"{bundle}: {len(faults)} of {number} files are not as they were exported; {remedy}\n  {named}"
        )


def files_in(bundle: Path, beside: Iterable[str] = ()) -> dict[str, Opener]:
    """Return how to open each file of a bundle, by its name; without hidden ones and those in `beside`."""
    left_out = {*beside}
    inner = {path.relative_to(bundle): path for path in sorted(bundle.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): _opener(path)
        for name, path in inner.items()
        if name.parts[0] not in left_out and not any(part.startswith(".") for part in name.parts)
    }


def refuse_cut(bundle: Path) -> None:
    """Check, without reading them, that the weights in a bundle have their sizes; SHA256SUMS says nothing of these.

    What is missing is no fault yet: who only retrieves needs no captioner.

    Raises:
        CheckpointError: naming weights of another size; or as of `read_list` and `refuse_pickles`.
    """
    refuse_pickles(bundle, files_in(bundle))
    if not (bundle / FILES).is_file():
        return
    for name, listed in read_list(bundle).items():
        path = bundle / name
        if path.suffix != ".safetensors" or not path.is_file():
            continue
        if (size := path.stat().st_size) != listed.bytes and listed.bytes is not None:
            raise CheckpointError(f"{path}: {size} bytes, expected {listed.bytes}; {AGAIN}")


def refuse_pickles(bundle: Path, names: Iterable[str]) -> None:
    """Raise CheckpointError if one of a bundle's files, by their names in it, is a pickle: no export holds any."""
    if pickled := [name for name in names if PurePosixPath(name).suffix.lower() in PICKLED]:
        raise CheckpointError(
            f"{bundle}: found {', '.join(pickled)}, expected weights in safetensors alone, as exported: pickled files "
            "can run code when they are read; remove them, or get the bundle from its source again"
        )


def _opener(path: Path) -> Opener:
    def opened() -> IO[bytes]:
        refuse_unreadable(path)
        return path.open("rb")

    return opened


def _sum(opened: Opener) -> str:
    with opened() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # IO[bytes] is what has readinto
