"""evaluate: compute the captioning and retrieval values of an exported ensemble on a corpus with Clotho's columns.

Example: enclap evaluate runs/demo/bundle data/soundscapes-demo test
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from corpora.csv_files import read_csv
from corpora.folder import read_folder
from corpora.table import CorpusError
from models.ensemble.bundle import Ensemble
from models.ensemble.index import AudioIndex
from models.files import write_frame, write_json
from models.metrics.captions import best_preprocessing, caption_values
from models.metrics.retrieval import NONE, Block, flatten_captions, relevant_of, retrieval_values_in_blocks
from models.retriever.model import negative_distances
from ray_jobs.inference.audio_files import read_in_batches
from ray_jobs.inference.output import print_data
from ray_jobs.run.console import say
from ray_jobs.run.directory import commit, package_versions
from ray_jobs.run.entry import run_command


def run(bundle: Path, root: Path, split: str, output: Path | None, relevance: Path | None = None) -> None:
    """Caption every clip, rank clips for every caption and captions for every clip, and print the values.

    Args:
        root: the corpus, with ROOT/SPLIT.csv and ROOT/SPLIT/*.wav.
        output: for the values as JSON, and beside it, as Parquet, those of single clips.
        relevance: CSV of caption,file_name, a row for each of the clips that are right for a caption.

    Raises:
        CorpusError: the corpus has no usable clip, or the relevance file does not fit it.
        CheckpointError: the bundle cannot be loaded.
    """
    table = _usable_clips(root, split)
    ensemble = Ensemble.load(bundle)
    predicted = _index_and_caption(ensemble, [Path(path) for path in table["path"]])
    captioned = table.set_index("path").loc[ensemble.audio_index.paths]
    references = captioned["captions"].tolist()
    captioning = caption_values(predicted, references, preprocessing=best_preprocessing())
    retrieval = _retrieval(ensemble, references, relevance)
    for what, found in {"captioning": captioning.corpus, **retrieval}.items():
        print_data(what.replace("_", " "))
        for name, value in found.items():
            print_data(f"  {name:12s} {value:.4f}")
    for line in captioning.absences:
        say(f"not computed: {line}", style="dim")
    if output:
        values = {
            "corpus": str(root),
            "split": split,
            "clips": len(references),
            "captioning": captioning.corpus,
            "captioning_details": captioning.details,
            **retrieval,
            "seed": ensemble.manifest.seed,
            "commit": commit(),
            "bundle_commit": ensemble.manifest.provenance["commit"],
            "packages": package_versions(),
        }
        write_json(output, values)
        of_clips = pd.DataFrame({"clip_id": captioned["clip_id"].tolist(), "caption": predicted})
        write_frame(output.with_suffix(".parquet"), of_clips.join(captioning.per_clip))
        say(f"evaluate: {output} and, clip by clip, {output.with_suffix('.parquet')}")


def _usable_clips(root: Path, split: str) -> pd.DataFrame:
    table = read_folder(root.resolve(), split)
    for row in table.quarantine.itertuples():
        say(f"left out: {row.clip_id}: {row.reason}", style="yellow")
    if table.clips.empty:
        raise CorpusError(f"{root}/{split}: no usable clips")
    return table.clips


def _index_and_caption(ensemble: Ensemble, paths: list[Path]) -> list[str]:
    """Fill the ensemble's index with these files alone, and return their captions in its order."""
    ensemble.audio_index = AudioIndex()
    captions: list[str] = []
    for readable, clips in read_in_batches(ensemble, paths, captioning=True):
        ensemble.index_clips(readable, clips)
        captions += [caption.text for caption in ensemble.caption_clips(clips)]
    return captions


def _retrieval(ensemble: Ensemble, references: list[list[str]], relevance: Path | None) -> dict[str, dict[str, float]]:
    """Return the values of each direction, and those of a relevance file, by their keys in the JSON file."""
    queries, target = flatten_captions(references)
    texts = ensemble.texts_under_metric(queries)
    values = {"retrieval": _text_to_audio(ensemble, texts, target[:, None])}
    if relevance:
        names = [Path(path).name for path in ensemble.audio_index.paths]
        captions, right = read_relevance(relevance, names)
        values["retrieval_relevance"] = _text_to_audio(ensemble, ensemble.texts_under_metric(captions), right)
    return values | {"retrieval_audio_to_text": _audio_to_text(ensemble, texts, target)}


def read_relevance(path: Path, names: list[str]) -> tuple[list[str], np.ndarray]:
    """Read a relevance file: its captions, and for each the rows [Q, R] of `names` that are right, padded with NONE.

    Raises:
        CorpusError: a column or all rows are missing, a caption is blank, or a row names a file that is not in `names`.
    """
    table = read_csv(path, "a CSV file of caption,file_name")
    table.require("caption", "file_name")
    table.refuse_blank("caption")
    row_of = {name: row for row, name in enumerate(names)}
    of_caption: dict[str, list[int]] = {}
    for line in table.usable_lines():
        caption, name = line.cells["caption"], line.cells["file_name"]
        if name not in row_of:
            raise CorpusError(f"{path}, line {line.number}: {name!r} is not among the {len(names)} clips of the split")
        rows = of_caption.setdefault(caption, [])
        if row_of[name] not in rows:
            rows.append(row_of[name])
    right = np.full((len(of_caption), max(map(len, of_caption.values()))), NONE)
    for row, found in zip(right, of_caption.values(), strict=True):
        row[: len(found)] = found
    return list(of_caption), right


def _text_to_audio(ensemble: Ensemble, texts: dict[str, np.ndarray], right: np.ndarray) -> dict[str, float]:
    block = _block(ensemble, texts, ensemble.audio_index.embeddings)
    return retrieval_values_in_blocks(block, right, len(ensemble.audio_index)).corpus


def _audio_to_text(ensemble: Ensemble, texts: dict[str, np.ndarray], target: np.ndarray) -> dict[str, float]:
    block = _block(ensemble, ensemble.audio_index.embeddings, texts)
    return retrieval_values_in_blocks(block, relevant_of(target, len(ensemble.audio_index)), len(target)).corpus


def _block(ensemble: Ensemble, asked: dict[str, np.ndarray], answers: dict[str, np.ndarray]) -> Block:
    """Return the fused similarity of some rows of `asked` to all `answers`, both by retriever under its metric."""
    join = ensemble.manifest.retrieval.join
    return lambda rows: join({name: negative_distances(asked[name][rows], answers[name]) for name in asked})


if __name__ == "__main__":
    run_command("evaluate")
