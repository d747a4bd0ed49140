"""evaluate: compute the captioning and retrieval values of an exported ensemble on a corpus with Clotho's columns.

Example: enclap evaluate runs/demo/bundle data/soundscapes-demo test
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from corpora.folder import read_folder
from corpora.relevance import read_relevance
from corpora.table import CorpusTable
from models.commands.audio_files import read_in_batches
from models.commands.output import print_data
from models.commands.retrieve import say_cost
from models.console import count, say
from models.ensemble.bundle import Ensemble
from models.ensemble.index import AudioIndex
from models.ensemble.manifest import BundleManifest
from models.errors import CorpusError, InputError
from models.files import write_frame, write_json
from models.metrics.captions import CaptionScores, best_preprocessing, caption_values
from models.metrics.retrieval import ApOver, flatten_captions, relevant_of, retrieval_values_in_blocks
from ray_jobs.inference.ranking import embed_texts, padded, ranking_values, rows_of
from ray_jobs.run.directory import commit, package_versions
from ray_jobs.run.entry import run_command

Values = dict[str, dict[str, float]]


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
    """
    table = _usable_clips(root, split)
    right = relevance.read(table) if relevance else Relevance()
    ensemble = Ensemble.load(bundle, ask_captioners=captioners)
    predicted = _index_and_caption(ensemble, [Path(path) for path in table.clips["path"]])
    captioned = table.clips.set_index("path").loc[ensemble.audio_index.paths]
    references = captioned["captions"].tolist()
    retrieval = _retrieval(ensemble, references, right)
    manifest = ensemble.manifest
    del ensemble  # CIDEr-D of 100,000 clips takes as much memory as the models and the embeddings
    captioning = caption_values(predicted, references, preprocessing=best_preprocessing())
    _print({"captioning": captioning.corpus, **retrieval}, right, captioning.absences)
    if output:
        write_json(output, _record(root, split, captioning, retrieval, right, manifest))
        of_clips = pd.DataFrame({"clip_id": captioned["clip_id"].tolist(), "caption": predicted})
        write_frame(output.with_suffix(".parquet"), of_clips.join(captioning.per_clip))
        say(f"evaluate: {output} and, clip by clip, {output.with_suffix('.parquet')}")


def _print(values: Values, relevance: Relevance, absences: list[str]) -> None:
    for what, found in values.items():
        over = f", average precision over {relevance.ap_over}" if what == "retrieval_relevance" else ""
        print_data(what.replace("_", " ") + over)
        for name, value in found.items():
            print_data(f"  {name:12s} {value:.4f}")
    for line in absences:
        say(f"not computed: {line}", style="dim")


def _record(
    root: Path, split: str, captioning: CaptionScores, retrieval: Values, relevance: Relevance, manifest: BundleManifest
) -> dict[str, object]:
    """Return what the JSON file holds."""
    queries = {"relevance": str(relevance.path), "ap_over": relevance.ap_over} if relevance.path else {}
    return {
        "corpus": str(root),
        "split": split,
        "clips": len(captioning.per_clip),
        "captioning": captioning.corpus,
        "captioning_details": captioning.details,
        **retrieval,
        **queries,
        "seed": manifest.seed,
        "commit": commit(),
        "bundle_commit": manifest.provenance["commit"],
        "packages": package_versions(),
    }


def _usable_clips(root: Path, split: str) -> CorpusTable:
    table = read_folder(root.resolve(), split)
    for row in table.quarantine.itertuples():
        say(f"left out: {row.clip_id}: {row.reason}", style="yellow")
    if table.clips.empty:
        raise CorpusError(f"{root}/{split}: no usable clips")
    return table


def _index_and_caption(ensemble: Ensemble, paths: list[Path]) -> list[str]:
    """Fill the ensemble's index with these files alone, and return their captions in its order."""
    ensemble.audio_index = AudioIndex()
    captions: list[str] = []
    for readable, clips in read_in_batches(ensemble, paths, captioning=True):
        ensemble.index_clips(readable, clips)
        captions += [caption.text for caption in ensemble.caption_clips(clips)]
    return captions


def _retrieval(ensemble: Ensemble, references: list[list[str]], relevance: Relevance) -> Values:
    """Return the values of each direction, and those of a relevance file, by their keys in the JSON file."""
    queries, target = flatten_captions(references)
    clips, fusion, device = ensemble.audio_index.embeddings, ensemble.manifest.retrieval, ensemble.device
    with TemporaryDirectory(prefix="enclap-evaluate-") as folder:
        texts = embed_texts(ensemble.texts_under_metric, queries, Path(folder))
        values = {"retrieval": ranking_values(fusion, texts, clips, target[:, None], device)}
        if right := rows_of(relevance.right, [Path(path).name for path in ensemble.audio_index.paths]):
            asked = ensemble.texts_under_metric(list(right))
            rows = padded(right.values())
            values["retrieval_relevance"] = ranking_values(fusion, asked, clips, rows, device, relevance.ap_over)
        if lost := len(relevance.right) - len(right):
            say(f"left out: {count(lost, 'query', 'queries')} whose clips could not be read", style="yellow")
        if ensemble.helped:
            values |= {"retrieval_with_captioners": _helped(ensemble, queries, target)}
        backwards = relevant_of(target, len(references))
        return values | {"retrieval_audio_to_text": ranking_values(fusion, clips, texts, backwards, device)}


def _helped(ensemble: Ensemble, queries: list[str], target: np.ndarray) -> dict[str, float]:
    """Return the values of ranking clips for captions with the help of captioners, and say what that costs."""
    start, clips = time.perf_counter(), len(ensemble.audio_index)
    found = retrieval_values_in_blocks(lambda rows: ensemble.similarity(queries[rows]), target[:, None], clips)
    say_cost(ensemble, "evaluate", time.perf_counter() - start, len(queries))
    return found.corpus


if __name__ == "__main__":
    run_command("evaluate")
