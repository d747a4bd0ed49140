"""Lay out the browser of the test clips: captions of every system with their values, and errors typed by rule.

The page holds all of it as JSON and shows some clips at a time; sounds and pictures lie beside it, one file each, and
are loaded when a clip is opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.console import progress_bar
from models.ensemble.scores.base import weight_name
from models.ensemble.scores.registry import columns_among
from models.files import write_bytes
from ray_jobs.experiment.config import Experiment
from ray_jobs.features.dataset import Features, read_features
from ray_jobs.reporting.caption_errors import FLUENCY, INVENTED, MISSING, CaptionChecker, CaptionError, caption_checker
from ray_jobs.reporting.confusions import Confusions, confusions
from ray_jobs.reporting.media import recording_mp3, spectrogram_png
from ray_jobs.reporting.systems import best_single
from ray_jobs.reporting.task_results import CAPTIONING_METRIC, ENSEMBLE, RETRIEVAL_METRIC
from ray_jobs.results.best import BestReranking
from ray_jobs.results.metrics import CAPTION_VALUES, RETRIEVAL_VALUES, EnsembleMetrics
from ray_jobs.results.table import OF_CANDIDATES, read_table, require_columns
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory

MOST = 5000  # clips that are shown: with more, a page would no longer open at once
CANDIDATES = 10  # of a clip
THREADS = 4
DIGITS = 4


@dataclass(frozen=True)
class Browser:
    """What the page shows."""

    metric: str  # that values are of
    single: str  # the best single system
    clips: int  # of the split, of which the page has the first
    errors: dict[str, dict[str, int]]  # by type, and by system: clips that have such an error
    events: bool  # whether the errors are held against the events of the clips
    classes: pd.DataFrame  # by class of sound: clips, mean value, captions without it, captions that invent it
    confusions: Confusions  # of retrieval
    data: dict[str, Any]  # as the page's script reads it


def browse(experiment: Experiment, directory: RunDirectory) -> Browser | None:
    """Lay out the clips of the test split; None where a version combined them that kept no values of single clips.

    Raises:
        RecordError: if what search or combine wrote cannot be read.
    """
    if not all(storage.exists(directory.ensemble / file) for file in (CAPTION_VALUES, RETRIEVAL_VALUES)):
        return None
    features = read_features([directory.features(experiment.target_corpus, "test")]).head(MOST)
    metrics, best = EnsembleMetrics.read(directory.ensemble), BestReranking.read(directory.search("reranking"))
    place = directory.ensemble / CAPTION_VALUES
    said = read_table(place, EnsembleMetrics.COMMAND, ("system", "clip_id", "caption"))
    metric = best.objective if best.objective in said else CAPTIONING_METRIC
    require_columns(said, [metric], place, EnsembleMetrics.COMMAND)
    texts = said.pivot(index="clip_id", columns="system", values="caption").loc[features.clip_ids]
    values = said.pivot(index="clip_id", columns="system", values=metric).loc[features.clip_ids]
    single = best_single(metrics.captioning, metric) or ENSEMBLE
    checker = caption_checker(experiment)
    candidates = read_table(
        directory.ensemble / "candidates.parquet", EnsembleMetrics.COMMAND, (*OF_CANDIDATES, "score", "chosen")
    )
    systems = [ENSEMBLE, *(system for system in metrics.captioning if system != ENSEMBLE)]
    stumbles = _not_fluent(candidates, best.fluency_threshold)
    errors = {system: _errors(checker, stumbles, features, texts[system]) for system in systems}
    weighed = [name for name in columns_among(candidates.columns) if best.weights.get(weight_name(name))]
    types = [*checker.types, FLUENCY]
    classes = [checker.classes(clip_id) for clip_id in features.clip_ids]
    return Browser(
        metric=metric,
        single=single,
        clips=metrics.clips,
        errors=_count(errors, types),
        events=MISSING in checker.types,
        classes=_by_class(classes, errors[ENSEMBLE], values[ENSEMBLE].to_numpy()),
        confusions=confusions(directory.ensemble, features, classes),
        data={
            "metric": metric,
            "systems": systems,
            "single": systems.index(single),
            "types": types,
            "classes": sorted({name for of in classes for name in of}),
            "scores": [weight_name(column) for column in weighed],
            "clips": _clips(features, texts[systems], values[systems]),
            "errors": [
                [[[types.index(one.type), one.about] for one in errors[system][clip]] for system in systems]
                for clip in range(len(features))
            ],
            "heard": classes,
            "retrieval": _retrieval(directory, features),
            "candidates": _candidates(candidates, features, weighed),
        },
    )


def write_media(features: Features, max_duration_s: float, folder: Path) -> None:
    """Write sound and picture of each clip, named by its number; of a recording that is gone, the picture alone."""

    def write(number: int) -> None:
        write_bytes(folder / f"{number}.png", spectrogram_png(features.log_mels[number]))
        if sound := recording_mp3(features.paths[number], max_duration_s):
            write_bytes(folder / f"{number}.mp3", sound)

    clips = range(min(MOST, len(features)))
    with ThreadPoolExecutor(THREADS) as threads, progress_bar(len(clips), "clips", "report") as bar:
        for _ in threads.map(write, clips):
            bar.update()


def _errors(
    checker: CaptionChecker, stumbles: Mapping[tuple[str, str], CaptionError], features: Features, texts: pd.Series
) -> list[list[CaptionError]]:
    """Return the errors of a system's caption of each clip, that it is not fluent among them."""
    return [
        [
            *checker.errors(clip_id, text, references),
            *([stumbles[clip_id, text]] if (clip_id, text) in stumbles else []),
        ]
        for clip_id, text, references in zip(features.clip_ids, texts, features.captions, strict=True)
    ]


def _not_fluent(candidates: pd.DataFrame, threshold: float) -> dict[tuple[str, str], CaptionError]:
    """Return the candidates with a fluency error above the threshold, by clip and text."""
    found = candidates[candidates["fluency_error"] > threshold]
    return {
        (clip_id, text): CaptionError(FLUENCY, f"fluency error {error:.2f}")
        for clip_id, text, error in found[["clip_id", "caption", "fluency_error"]].itertuples(index=False, name=None)
    }


def _count(errors: Mapping[str, list[list[CaptionError]]], types: list[str]) -> dict[str, dict[str, int]]:
    """Return the numbers of clips with an error, by its type and by system."""
    found = {name: Counter(kind for of in clips for kind in {one.type for one in of}) for name, clips in errors.items()}
    return {kind: {name: found[name][kind] for name in errors} for kind in types if any(found[n][kind] for n in errors)}


def _by_class(classes: list[list[str]], errors: list[list[CaptionError]], values: np.ndarray) -> pd.DataFrame:
    """Return one row a class of sound, the lowest mean value first; none where classes are not known."""
    rows = [(name, clip) for clip, of in enumerate(classes) for name in of]
    heard = pd.DataFrame(rows, columns=["class", "clip"])
    heard["value"] = values[heard["clip"].to_numpy(int)]
    table = heard.groupby("class").agg(clips=("clip", "size"), value=("value", "mean"))
    for kind in (MISSING, INVENTED):
        table[kind] = pd.Series(Counter(one.about for of in errors for one in of if one.type == kind), dtype=int)
    return table.fillna(0).astype({MISSING: int, INVENTED: int}).sort_values("value")


def _clips(features: Features, texts: pd.DataFrame, values: pd.DataFrame) -> list[list[Any]]:
    """Return file name, duration, references, captions and values of each clip, the latter two by system."""
    rows = zip(features.file_names, features.durations_s, features.captions, strict=True)
    said, rounded = texts.to_numpy().tolist(), values.to_numpy().round(DIGITS).tolist()
    return [
        [name, round(duration, 1), references, said[clip], rounded[clip]]
        for clip, (name, duration, references) in enumerate(rows)
    ]


def _retrieval(directory: RunDirectory, features: Features) -> list[float]:
    """Return how well the ensemble finds each clip by its captions: their mean average precision."""
    columns = ("system", "clip_id", RETRIEVAL_METRIC)
    values = read_table(directory.ensemble / RETRIEVAL_VALUES, EnsembleMetrics.COMMAND, columns)
    of_ensemble = values[values["system"] == ENSEMBLE].groupby("clip_id")[RETRIEVAL_METRIC].mean()
    means: list[float] = of_ensemble.loc[features.clip_ids].round(DIGITS).tolist()
    return means


def _candidates(candidates: pd.DataFrame, features: Features, weighed: list[str]) -> list[list[list[Any]]]:
    """Return each clip's best candidates and the chosen one: text, captioner, whether chosen, total and scores."""
    ordered = candidates.sort_values(["clip_id", "score"], ascending=[True, False], kind="stable")
    kept = ordered[(ordered.groupby("clip_id").cumcount() < CANDIDATES) | ordered["chosen"]]
    numbers = kept[["score", *weighed]].astype(float).round(DIGITS)
    rows: dict[str, list[list[Any]]] = {clip_id: [] for clip_id in features.clip_ids}
    texts = kept[["clip_id", "caption", "captioner"]].itertuples(index=False)
    for (clip_id, *text), chosen, scores in zip(texts, kept["chosen"], numbers.to_numpy().tolist(), strict=True):
        if clip_id in rows:
            rows[clip_id].append([*text, int(chosen), *(None if np.isnan(score) else score for score in scores)])
    return [*rows.values()]
