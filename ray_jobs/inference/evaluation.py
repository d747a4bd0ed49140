"""Compute the captioning and retrieval values of an exported ensemble on the clips of a corpus."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from models.commands.audio_files import read_in_batches
from models.commands.retrieve import say_cost
from models.console import count, say
from models.ensemble.bundle import Ensemble
from models.ensemble.index import AudioIndex
from models.ensemble.manifest import BundleManifest
from models.metrics.captions import CaptionScores, best_preprocessing, caption_values
from models.metrics.retrieval import ApOver, flatten_captions, relevant_of, retrieval_values_in_blocks
from ray_jobs.inference.ranking import embed_texts, padded, ranking_values, rows_of

Values = dict[str, dict[str, float]]
Relevant = Mapping[str, dict[str, int]]  # by query: names of files, and the line of each


@dataclass(frozen=True)
class Evaluation:
    """The values of an ensemble, and what it said of each clip that could be read."""

    clip_ids: list[str]
    captions: list[str]
    captioning: CaptionScores
    retrieval: Values
    manifest: BundleManifest


def evaluate_bundle(
    bundle: Path, clips: pd.DataFrame, right: Relevant, ap_over: ApOver, captioners: bool
) -> Evaluation:
    """Caption every clip, and rank clips for every caption and captions for every clip.

    Args:
        clips: `path`, `clip_id` and `captions` of each.
        right: further queries, with the files that are right for each.
        ap_over: divides average precision of such a query with more right clips than the cut-off.
        captioners: whether they may help to retrieve, where the bundle weighs them.

    Raises:
        AudioError: no clip can be read.
        CheckpointError: the bundle cannot be loaded.
    """
    ensemble = Ensemble.load(bundle, ask_captioners=captioners)
    predicted = _index_and_caption(ensemble, [Path(path) for path in clips["path"]])
    captioned = clips.set_index("path").loc[ensemble.audio_index.paths]
    references = captioned["captions"].tolist()
    retrieval = _retrieval(ensemble, references, right, ap_over)
    manifest = ensemble.manifest
    del ensemble  # CIDEr-D of 100,000 clips takes as much memory as the models and the embeddings
    captioning = caption_values(predicted, references, preprocessing=best_preprocessing())
    return Evaluation(captioned["clip_id"].tolist(), predicted, captioning, retrieval, manifest)


def _index_and_caption(ensemble: Ensemble, paths: list[Path]) -> list[str]:
    """Fill the ensemble's index with these files alone, and return their captions in its order."""
    ensemble.audio_index = AudioIndex()
    captions: list[str] = []
    for readable, clips in read_in_batches(ensemble, paths, captioning=True):
        ensemble.index_clips(readable, clips)
        captions += [caption.text for caption in ensemble.caption_clips(clips)]
    return captions


def _retrieval(ensemble: Ensemble, references: list[list[str]], right: Relevant, ap_over: ApOver) -> Values:
    """Return the values of each direction, and those of a relevance file, by their keys in the JSON file."""
    queries, target = flatten_captions(references)
    clips, fusion, device = ensemble.audio_index.embeddings, ensemble.manifest.retrieval, ensemble.device
    with TemporaryDirectory(prefix="enclap-evaluate-") as folder:
        texts = embed_texts(ensemble.texts_under_metric, queries, Path(folder))
        values = {"retrieval": ranking_values(fusion, texts, clips, target[:, None], device)}
        if known := rows_of(right, [Path(path).name for path in ensemble.audio_index.paths]):
            asked = ensemble.texts_under_metric(list(known))
            rows = padded(known.values())
            values["retrieval_relevance"] = ranking_values(fusion, asked, clips, rows, device, ap_over)
        if lost := len(right) - len(known):
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
