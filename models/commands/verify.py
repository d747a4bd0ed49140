"""verify: check that a bundle is whole and as it was exported, without loading its members.

Example: enclap verify runs/demo/bundle
"""

from __future__ import annotations

from pathlib import Path

from ..console import say
from ..ensemble.checksums import check_sums
from ..ensemble.manifest import INDEX, read_manifest
from ..files import CheckpointError


def run(bundle: Path) -> None:
    """Compare every file with its checksum, and say what the bundle holds.

    Raises:
        CheckpointError: a file is missing or changed, all of them named, or this version cannot read the bundle.
    """
    found = check_sums(bundle, [INDEX])
    faults = [f"{name}: missing" for name in found.missing] + [f"{name}: changed" for name in found.changed]
    if faults:
        number, listed = len(faults) + len(found.intact), "\n  ".join(faults)
        raise CheckpointError(
            f"{bundle}: {len(faults)} of {number} files are not as they were exported; copy or export the bundle again"
            f"\n  {listed}"
        )
    manifest = read_manifest(bundle)
    for name in found.unlisted:
        say(f"verify: {name} is not part of the export", style="yellow")
    size = sum((bundle / name).stat().st_size for name in found.intact)
    members = [*manifest.retrievers, *manifest.captioners, *filter(None, [manifest.fluency_detector])]
    say(f"verify: {len(found.intact)} files, {size / 2**20:.1f} MiB, as they were exported; {', '.join(members)}")
