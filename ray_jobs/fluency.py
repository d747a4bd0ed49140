"""fluency: how a bundle's detector judges captions that people wrote, and the same captions damaged.

Example: enclap fluency runs/demo/bundle clotho_captions_evaluation.csv
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpora.soundscapes.corpus import KIND
from models.commands.output import print_data
from models.console import say
from models.csv_files import read_captions
from models.device import available_device
from models.ensemble.manifest import read_manifest
from models.files import CheckpointError, write_json
from models.fluency.detector import FluencyDetector, detection
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.run.entry import run_command


def run(bundle: Path, tables: list[Path], output: Path | None = None) -> None:
    """Print the share of captions that is flagged, and precision and recall on each type of damage.

    Args:
        tables: CSV files with captions in columns caption, caption_1, caption_2, ... (Clotho's).
        output: for the same as JSON.

    Raises:
        CorpusError: a table has no captions.
        CheckpointError: there is no bundle, or it has no detector.
    """
    captions = {str(table): read_captions(table) for table in tables}
    manifest = read_manifest(bundle)
    if not manifest.fluency_detector:
        raise CheckpointError(f"{bundle}: the ensemble has no fluency detector")
    detector = FluencyDetector.load(bundle / "members" / manifest.fluency_detector).to(available_device())
    threshold = manifest.reranking.fluency_threshold
    known = EnsembleMetrics.read(bundle, "export the run again")
    found = {name: detection(detector, texts, threshold, manifest.seed) for name, texts in captions.items()}
    if known.fluency_detector:
        found = {f"{known.corpus} {known.split}, measured by combine": known.fluency_detector.model_dump(), **found}
    for name, one in found.items():
        for line in _lines(name, one):
            print_data(line)
    is_trained = manifest.provenance["members"][manifest.fluency_detector]["epochs"] > 0
    corpora = {name: one["kind"] for name, one in manifest.provenance["corpora"].items()} if is_trained else {}
    if is_trained:
        names = ", ".join(corpora)
        say(f"fluency: the detector was trained on {names}; captions of other corpora are out of its domain")
    else:
        say("fluency: the detector is a published one, which was not trained on the bundle's corpora")
    if set(corpora.values()) == {KIND}:
        say(
            "fluency: that is the built-in synthetic corpus alone; captions that it flags elsewhere are unlike it, and "
            "may be fluent",
            style="yellow",
        )
    if output:
        write_json(output, {"trained_on": corpora, "captions": found})


def _lines(name: str, found: dict[str, Any]) -> Iterator[str]:
    """Yield a line on all captions, and a table of the types of damage."""
    share = f"{100 * found['flagged']:.1f} % of {found['captions']} captions flagged above {found['threshold']:g}"
    yield f"{name}: {share}"
    yield f"  {'damage':20s}{'captions':>10s}{'precision':>11s}{'recall':>8s}"
    for kind, one in found["damage"].items():
        shares = f"{_share(one['precision']):>11s}{_share(one['recall']):>8s}"
        yield f"  {kind.replace('_', ' '):20s}{one['captions']:>10d}{shares}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    run_command("fluency")
