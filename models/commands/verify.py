"""verify: check that a bundle is whole and as it was exported, and that its members still compute the same.

Example: enclap verify runs/demo/bundle
"""

from __future__ import annotations

from pathlib import Path

from ..console import say
from ..ensemble.archive import check_archive, unpacked
from ..ensemble.checksums import check_sums, refuse_faults
from ..ensemble.manifest import INDEX, read_manifest
from ..files import CheckpointError


def run(bundle: Path, self_test: bool = True) -> None:
    """Compare every file with its checksum, say what the bundle holds, and let its members judge its own clip.

    Of an archive the files in it are compared, and those where it is unpacked.

    Args:
        bundle: its directory or its archive.
        self_test: whether its members are loaded for this.

    Raises:
        CheckpointError: a file is missing, changed or pickled, all of them named, or this version cannot read the
            bundle.
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
    if self_test:
        from ..ensemble.self_test import run_self_test  # loads torch

        say(f"verify: the ensemble {run_self_test(directory)}")
