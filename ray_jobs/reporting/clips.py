"""Lay out the report's clips: what the ensemble heard, said and found, to look at and listen to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from models.ensemble.candidate_table import CandidateTable
from models.ensemble.scores.base import weight_name
from models.ensemble.scores.registry import columns_among
from models.metrics.captions import candidate_values
from ray_jobs.experiment.config import Experiment
from ray_jobs.features.dataset import Features, read_features
from ray_jobs.reporting.confusions import read_ranking
from ray_jobs.reporting.media import data_uri, recording_mp3, spectrogram_png
from ray_jobs.results.best import BestReranking
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.results.table import OF_CANDIDATES, read_table
from ray_jobs.run.directory import RunDirectory

CLIPS, CANDIDATES, RETRIEVED = 8, 5, 5  # shown: clips, and of each clip candidates and retrieved files


@dataclass(frozen=True)
class ShownRetrieval:
    """A caption of the clip as a query."""

    query: str
    names: list[str]  # of the first files retrieved
    rank: int | None  # of the clip itself; None where it is not among those listed
    listed: int


@dataclass(frozen=True)
class ShownClip:
    """A clip with everything that the page shows of it."""

    file: str
    why: str  # best, worst or random
    cider_d: float
    caption: str
    references: list[str]
    duration_s: float
    audio: str | None  # data URI; None where the file is gone
    picture: str  # data URI
    alone: dict[str, str]  # captioner to the caption that it alone would have given
    candidates: list[dict[Any, Any]]  # rows of candidates.parquet with their `rank`, best first
    candidate_count: int
    scores: dict[str, str]  # column of `candidates` to the name of the score, of those that have a weight
    unweighed: int  # number of further columns of scores
    retrieval: ShownRetrieval


def shown_clips(experiment: Experiment, directory: RunDirectory) -> list[ShownClip]:
    """Return the clips with the highest and the lowest CIDEr-D of the ensemble's caption, and some drawn at random."""
    features = read_features([directory.features(experiment.target_corpus, "test")])
    table = read_table(
        directory.ensemble / "candidates.parquet", EnsembleMetrics.COMMAND, (*OF_CANDIDATES, "score", "chosen")
    )
    candidates = dict(list(table.groupby("clip_id", sort=False)))
    captions = [candidates[clip_id].query("chosen")["caption"].iloc[0] for clip_id in features.clip_ids]
    values = np.concatenate(candidate_values([[text] for text in captions], features.captions, "cider_d"))
    rankings = read_ranking(directory.ensemble)
    first_query = np.cumsum([0, *map(len, features.captions)])
    best = BestReranking.read(directory.search("reranking"))
    rng = np.random.default_rng(experiment.seed)
    clips = []
    for row, why in pick_clips(values, rng):
        frame = candidates[features.clip_ids[row]]
        sound = recording_mp3(features.paths[row], experiment.features.max_duration_s)
        clips.append(
            ShownClip(
                file=features.file_names[row],
                why=why,
                cider_d=float(values[row]),
                caption=captions[row],
                references=features.captions[row],
                duration_s=features.durations_s[row],
                audio=data_uri(sound, "audio/mpeg") if sound else None,
                picture=data_uri(spectrogram_png(features.log_mels[row]), "image/png"),
                alone=_alone(frame, best, experiment.of_kind("captioner")),
                candidates=_best_candidates(frame),
                candidate_count=len(frame),
                scores=(weighed := _weighed(frame, best.weights)),
                unweighed=len(columns_among(frame.columns)) - len(weighed),
                retrieval=_retrieval(features, rankings, row, first_query[row], rng),
            )
        )
    return clips


def pick_clips(values: np.ndarray, rng: np.random.Generator) -> list[tuple[int, str]]:
    """Return rows of clips with the reason for each: three of the best, three of the worst, the rest at random."""
    order = np.argsort(-values, kind="stable")
    third = min(3, len(order) // 3)
    rest = rng.permutation(order[third : len(order) - third])[: CLIPS - 2 * third]
    named = {"best": order[:third], "random": rest, "worst": order[len(order) - third :]}
    return [(int(row), why) for why, rows in named.items() for row in rows]


def _weighed(frame: pd.DataFrame, weights: dict[str, float]) -> dict[str, str]:
    """Return the columns of scores by which candidates are chosen, with the names of their weights."""
    return {column: name for column in columns_among(frame.columns) if weights.get(name := weight_name(column))}


def _alone(frame: pd.DataFrame, best: BestReranking, captioners: list[str]) -> dict[str, str]:
    """Return the caption that each captioner alone would have given of a clip, reranked.

    Of searches that chose for the ensemble alone, it is that of its samples under the ensemble's weights.
    """
    table = CandidateTable.from_frame(frame, [frame["clip_id"].iloc[0]]).table
    own = {name: table.of_captioner(name) for name in captioners}
    if best.alone:
        chosen = {name: best.alone[name].choose(table) for name in captioners}
    else:
        chosen = {name: best.reranking.choose(samples) for name, samples in own.items() if samples.mask.any()}
    return {name: table.texts[0][int(place[0])] for name, place in chosen.items()}


def _best_candidates(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return a clip's first candidates by score, and the chosen one."""
    ranked = frame.sort_values("score", ascending=False, kind="stable").assign(rank=range(1, len(frame) + 1))
    return ranked[(ranked["rank"] <= CANDIDATES) | ranked["chosen"]].to_dict("records")


def _retrieval(
    features: Features, rankings: pd.DataFrame, row: int, first_query: int, rng: np.random.Generator
) -> ShownRetrieval:
    """Return the files found for one of the clip's captions, drawn at random."""
    ranking = rankings.iloc[int(first_query + rng.integers(len(features.captions[row])))]
    names, right = ranking.iloc[1:].tolist(), features.file_names[row]
    rank = names.index(right) + 1 if right in names else None
    return ShownRetrieval(ranking["caption"], names[:RETRIEVED], rank, len(names))
