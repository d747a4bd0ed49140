"""verify: check that a bundle and its index are whole, and that its members compute the same as when exported.

Example: enclap verify runs/demo/bundle
"""

from __future__ import annotations

from pathlib import Path

from ..console import say
from ..ensemble.archive import check_archive, unpacked
from ..ensemble.checksums import check_sums, refuse_faults
from ..ensemble.index_record import RECORD, check_index, refuse_no_directory
from ..ensemble.manifest import INDEX, read_manifest
from ..files import CheckpointError


def run(bundle: Path, self_test: bool = True) -> None:
    """Compare every file with its checksum, say what the bundle holds, and let its members judge its own clip.

    Of an archive the files in it are compared, and those where it is unpacked. Of the index, what it keeps of files is
    compared with the sums of when it was written.

    Args:
        bundle: its directory or its archive.
        self_test: whether its members are loaded for this.

    Raises:
        CheckpointError: a file is missing, changed or pickled, all of them named, this version cannot read the
            bundle, or its index is damaged.
        SelfTestError: the files are right, but members compute something else here.
    """
    if not bundle.exists():
        raise CheckpointError(f"{bundle}: no such file or directory; expected a bundle made by `enclap export`")
    found = check_archive(bundle) if bundle.is_file() else check_sums(bundle, [INDEX])
    refuse_faults(bundle, found)
    for name in found.unlisted:
        say(f"verify: {name} is not part of the export", style="yellow")
    directory = unpacked(bundle)
    if directory != bundle:
        refuse_faults(directory, check_sums(directory), "remove those, and the archive is unpacked again")
    manifest = read_manifest(directory)
    size = sum((directory / name).stat().st_size for name in found.intact)
    members = [*manifest.retrievers, *manifest.captioners, *filter(None, [manifest.fluency_detector])]
    say(f"verify: {len(found.intact)} files, {size / 2**20:.1f} MiB, as they were exported; {', '.join(members)}")
    _verify_index(directory)
    if self_test:
        from ..ensemble.self_test import run_self_test  # loads torch

        say(f"verify: the ensemble {run_self_test(directory)}")


def _verify_index(bundle: Path) -> None:
    refuse_no_directory(bundle / INDEX)
    if not (bundle / INDEX / RECORD).is_file():
        return
    compared = check_index(bundle / INDEX)
    found = "written by an earlier version, has no sums; the next `enclap index` adds them"
    say(f"verify: the index, {found if compared is None else f'{compared / 2**20:.1f} MiB, is as it was written'}")
