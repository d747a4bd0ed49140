"""fluency: how a bundle's detector judges captions that people wrote, and the same captions damaged.

Example: enclap fluency runs/demo/bundle clotho_captions_evaluation.csv
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpora.soundscapes.corpus import KIND
from models.commands.output import print_data, reserved
from models.console import refuse_closed_output, say
from models.csv_files import read_captions
from models.ensemble.manifest import BundleManifest, read_manifest
from models.files import CheckpointError, write_json
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
        InputError: `output` cannot be written, or is one of the tables; or standard output is closed without it.
    """
    if not output:
        refuse_closed_output()
    captions = {str(table): read_captions(table) for table in tables}
    manifest = read_manifest(bundle)
    if not manifest.fluency_detector:
        raise CheckpointError(f"{bundle}: the ensemble has no fluency detector")
    with reserved({"--output": output}, tables):
        found = _judged(bundle, manifest, manifest.fluency_detector, captions)
        for name, one in found.items():
            for line in _lines(name, one):
                print_data(line)
        corpora = _say_training(manifest, manifest.fluency_detector)
        if output:
            write_json(output, {"trained_on": corpora, "captions": found})


def _judged(
    bundle: Path, manifest: BundleManifest, name: str, captions: dict[str, list[str]]
) -> dict[str, dict[str, Any]]:
    """Return what the detector of a name flags, by table; of the run's own captions, too, where `combine` measured."""
    from models.device import available_device
    from models.fluency.detector import FluencyDetector, detection  # loads torch

    known = EnsembleMetrics.read(bundle, "export the run again")
    detector = FluencyDetector.load(bundle / "members" / name).to(available_device())
    threshold = manifest.reranking.fluency_threshold
    found = {table: detection(detector, texts, threshold, manifest.seed) for table, texts in captions.items()}
    if known.fluency_detector:
        found = {f"{known.corpus} {known.split}, measured by combine": known.fluency_detector.model_dump(), **found}
    return found


def _trained_on(provenance: dict[str, Any], name: str) -> dict[str, str] | None:
    """Return the kinds of the corpora that a member was trained on, by their names; None where it is not known."""
    try:
        is_trained = provenance["members"][name]["epochs"] > 0
        return {name: one["kind"] for name, one in provenance["corpora"].items()} if is_trained else {}
    except (KeyError, TypeError, AttributeError):  # a bundle is used whatever it says of its provenance
        return None


def _say_training(manifest: BundleManifest, name: str) -> dict[str, str] | None:
    """Say which captions the detector knows; return what `_trained_on` does."""
    corpora = _trained_on(manifest.provenance, name)
    if corpora is None:
        say("fluency: bundle.json does not say what the detector was trained on")
        return None
    if corpora:
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
    return corpora


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
