"""The checksums of a bundle's files, in SHA256SUMS, which `sha256sum --check` reads, too.

They find damage, not malice: who changes a file can change its sum.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..files import CheckpointError, sha256_of, write_text

SUMS = "SHA256SUMS"
_LINE = re.compile(r"(?P<sum>[0-9a-f]{64}) [ *](?P<name>.+)")


@dataclass(frozen=True)
class Checked:
    """The files of a bundle that are as they were exported, and those that are not, by their names in it."""

    intact: list[str]
    changed: list[str]
    missing: list[str]
    unlisted: list[str]  # beside what was exported, but for the index and hidden files


def write_sums(bundle: Path, names: Iterable[str]) -> None:
    """Write the sums of files, given by their names in the bundle."""
    write_text(bundle / SUMS, "".join(f"{sha256_of(bundle / name)}  {name}\n" for name in sorted(names)))


def read_sums(bundle: Path) -> dict[str, str]:
    """Return the sums of a bundle's files by their names in it.

    Raises:
        CheckpointError: if SHA256SUMS is missing, or a line is no sum of a file in the bundle.
    """
    path = bundle / SUMS
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a bundle made by `enclap export`, as a whole")
    sums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        found = _LINE.fullmatch(line)
        if not found or PurePosixPath(found["name"]).is_absolute() or ".." in PurePosixPath(found["name"]).parts:
            raise CheckpointError(
                f"{path}: line {number}: found {line[:100]!r}, expected a SHA-256 sum, two spaces and the name of a "
                "file in the bundle; copy or export the bundle again"
            )
        sums[found["name"]] = found["sum"]
    return sums


def check_sums(bundle: Path, beside: Iterable[str] = ()) -> Checked:
    """Compare the files of a bundle with their sums.

    Args:
        beside: directories in the bundle that are not of the export, such as the index.
    """
    sums = read_sums(bundle)
    missing = [name for name in sums if not (bundle / name).is_file()]
    changed = [name for name in sums if name not in missing and sha256_of(bundle / name) != sums[name]]
    there = {path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file()}
    others = sorted(
        path.as_posix()
        for path in there
        if path.as_posix() not in {*sums, SUMS} and path.parts[0] not in {*beside} and not path.name.startswith(".")
    )
    return Checked([name for name in sums if name not in {*missing, *changed}], changed, missing, others)
