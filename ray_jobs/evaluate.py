"""evaluate: compute the captioning and retrieval values of an exported ensemble on a corpus with Clotho's columns.

Example: enclap evaluate runs/demo/bundle data/soundscapes-demo test
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from corpora.folder import read_folder
from corpora.relevance import read_relevance
from corpora.table import CorpusTable
from models.commands.output import print_data, reserved
from models.console import refuse_closed_output, say
from models.ensemble.manifest import read_manifest
from models.errors import CorpusError, InputError
from models.files import is_device, write_frame, write_json
from ray_jobs.run.directory import commit, package_versions
from ray_jobs.run.entry import run_command

if TYPE_CHECKING:  # what is told of paths is told before torch is loaded
    from models.metrics.retrieval import ApOver
    from ray_jobs.inference.evaluation import Evaluation, Values


@dataclass(frozen=True)
class Relevance:
    """The files that are right for each of some queries, and how average precision counts them."""

    path: Path | None = None  # a file that says which clips are right for a query (`corpora.relevance`)
    ap_over: ApOver = "cutoff"  # divides average precision of queries with more right clips than the cut-off
    right: dict[str, dict[str, int]] = field(default_factory=dict)  # by query: names of files, and the line of each

    def __post_init__(self) -> None:
        if self.path is None and self.ap_over != "cutoff":
            raise InputError("--ap-over: is for the queries of --relevance; name a file, or leave it out")

    def read(self, table: CorpusTable) -> Relevance:
        """Return it with what its file, if any, says of a corpus.

        Raises:
            CorpusError: as of `read_relevance`, or a line names a file that is not in the split.
        """
        if self.path is None:
            return self
        right = read_relevance(self.path)
        known = {Path(file).name for file in (*table.clips["path"], *table.quarantine["path"])}
        for names in right.values():
            for name, line in names.items():
                if name not in known:
                    raise CorpusError(
                        f"{self.path}, line {line}: {name!r} is not among the {len(known)} clips of the split"
                    )
        return replace(self, right=right)


def run(
    bundle: Path,
    root: Path,
    split: str,
    output: Path | None,
    relevance: Relevance | None = None,
    captioners: bool = True,
) -> None:
    """Caption every clip, rank clips for every caption and captions for every clip, and print the values.

    Args:
        root: the corpus, with ROOT/SPLIT.csv and ROOT/SPLIT/*.wav.
        output: for the values as JSON, and beside it, as Parquet, those of single clips.
        relevance: further queries, whose file is not read yet.
        captioners: whether they may help to retrieve, where the bundle weighs them.

    Raises:
        CorpusError: the corpus has no usable clip, or the relevance file does not fit it.
        CheckpointError: the bundle cannot be loaded.
        InputError: a file cannot be written, or is one of those that are read; or standard output is closed without
            `output`.
    """
    if not output:
        refuse_closed_output()
    table = _usable_clips(root, split)
    right = relevance.read(table) if relevance else Relevance()
    read_manifest(bundle)
    of_clips = output.with_suffix(".parquet") if output and not is_device(output) else None
    with reserved({"--output": output, "--output, clip by clip,": of_clips}, _inputs(root, table, right)):
        from ray_jobs.inference.evaluation import evaluate_bundle

        found = evaluate_bundle(bundle, table.clips, right.right, right.ap_over, captioners)
        _print({"captioning": found.captioning.corpus, **found.retrieval}, right, found.captioning.absences)
        if output:
            write_json(output, _record(root, split, found, right))
        if of_clips:
            captions = pd.DataFrame({"clip_id": found.clip_ids, "caption": found.captions})
            write_frame(of_clips, captions.join(found.captioning.per_clip))
            say(f"evaluate: {output} and, clip by clip, {of_clips}")


def _inputs(root: Path, table: CorpusTable, relevance: Relevance) -> list[Path]:
    """Return the files that are read: the tables of the corpus, its audio, and the relevance file."""
    audio = [Path(path) for path in (*table.clips["path"], *table.quarantine["path"])]
    return [*root.glob("*.csv"), *audio, *([relevance.path] if relevance.path else [])]


def _print(values: Values, relevance: Relevance, absences: list[str]) -> None:
    for what, found in values.items():
        over = f", average precision over {relevance.ap_over}" if what == "retrieval_relevance" else ""
        print_data(what.replace("_", " ") + over)
        for name, value in found.items():
            print_data(f"  {name:12s} {value:.4f}")
    for line in absences:
        say(f"not computed: {line}", style="dim")


def _record(root: Path, split: str, found: Evaluation, relevance: Relevance) -> dict[str, object]:
    """Return what the JSON file holds."""
    queries = {"relevance": str(relevance.path), "ap_over": relevance.ap_over} if relevance.path else {}
    return {
        "corpus": str(root),
        "split": split,
        "clips": len(found.captioning.per_clip),
        "captioning": found.captioning.corpus,
        "captioning_details": found.captioning.details,
        **found.retrieval,
        **queries,
        "seed": found.manifest.seed,
        "commit": commit(),
        "bundle_commit": found.manifest.provenance.get("commit"),
        "packages": package_versions(),
    }


def _usable_clips(root: Path, split: str) -> CorpusTable:
    table = read_folder(root.resolve(), split)
    for row in table.quarantine.itertuples():
        say(f"left out: {row.clip_id}: {row.reason}", style="yellow")
    if table.clips.empty:
        raise CorpusError(f"{root}/{split}: no usable clips")
    return table


if __name__ == "__main__":
    run_command("evaluate")
