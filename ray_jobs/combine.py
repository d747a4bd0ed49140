"""combine: run the ensemble on the test split once, with what search chose: submissions, metrics, comparisons.

Example: enclap combine experiments/demo.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import ray

from models.console import say
from models.ensemble.candidate_table import CandidateTable
from models.ensemble.reranking import Reranking
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.files import write_frame, write_text
from models.fluency.detector import detection
from models.metrics.bootstrap import Comparison, paired_bootstrap
from models.metrics.captions import CaptionScores, best_preprocessing, caption_values
from models.metrics.diversity import caption_diversity, collapse_warning
from models.metrics.retrieval import (
    RetrievalScores,
    chance_map10,
    relevant_of,
    retrieval_values,
    retrieval_values_in_blocks,
    transport_similarity,
)
from models.submission import LISTED, SubmissionError, write_captions, write_retrieval
from ray_jobs.experiment.config import Experiment
from ray_jobs.results.best import BestReranking, BestRetrieval, BestSampling, ColumnCosts
from ray_jobs.results.metrics import (
    CAPTION_VALUES,
    COMPARED,
    HELPED,
    RETRIEVAL_VALUES,
    CaptioningDetails,
    Detection,
    EnsembleMetrics,
    SystemComparison,
    Systems,
    Values,
)
from ray_jobs.results.time_limit import without_left_out
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, commit, is_done, mark_done, package_versions, require
from ray_jobs.run.entry import run_command
from ray_jobs.tuning.candidate_store import resources
from ray_jobs.tuning.latency import system_seconds
from ray_jobs.tuning.member_worth import member_worth
from ray_jobs.tuning.retrieval import column_costs
from ray_jobs.tuning.trained_members import TrainedMembers

SPLIT = "test"
UNFILTERED = "ensemble, unfiltered"
SCORED_AT_ONCE = 2  # METEOR takes up to 2 GB for each
TRANSDUCTIVE = "transductive: ranked by the transport plan of all queries and clips, not query by query"


@dataclass(frozen=True)
class Chosen:
    """The captions of every system."""

    texts: dict[str, list[str]]
    unfiltered: list[str]  # of the ensemble without its fluency filter
    warnings: list[str]


@dataclass(frozen=True)
class Captioning:
    """The captioning part of metrics.json, and what the user should know."""

    systems: Systems
    details: CaptioningDetails
    comparisons: list[SystemComparison]
    warnings: list[str]


@dataclass(frozen=True)
class Retrieval:
    """The retrieval part of metrics.json, and what the user should know."""

    text_to_audio: Systems
    audio_to_text: Systems
    transport: Systems | None  # where it is asked for
    comparisons: list[SystemComparison]
    warnings: list[str]
    costs: ColumnCosts | None  # of captioners' columns, where these are asked for

    @property
    def details(self) -> dict[str, str]:
        """Return how the values were computed, by their key in metrics.json."""
        details = {
            "retrieval": "text to audio, plain distance query by query",
            "retrieval_audio_to_text": "R@k: any caption of the clip; AP@10 over all of them",
        }
        return details if self.transport is None else details | {"retrieval_transport": TRANSDUCTIVE}


def run(experiment: Experiment) -> None:
    """Fill ensemble/ with candidates, captions.csv, retrieval.csv, the values of clips and queries, seconds.json and
    metrics.json.

    Raises:
        NotReadyError: if `search` has not run on this experiment.
        RecordError: if what search wrote cannot be read.
    """
    check(experiment)
    experiment = without_left_out(experiment)
    directory = RunDirectory(experiment)
    if is_done(directory.ensemble, directory.results_inputs()):
        say("combine: done already")
        return
    experiment.search.choose_objective(BestReranking.read(directory.search("reranking")).objective)
    say("combine: candidates of the test split")
    gpus = resources(experiment.search)["gpu"]
    combined = ray.remote(num_cpus=1, num_gpus=gpus)(_combine).remote(experiment.model_dump_json(), commit())
    for line in ray.get(combined):
        say(f"combine: {line}", "yellow")
    mark_done(directory.ensemble, directory.results_inputs())
    say(f"combine: {storage.uri(directory.ensemble)}")


def check(experiment: Experiment) -> None:
    """Check that there is something to combine; Ray need not run.

    Raises:
        NotReadyError: if `search` has not run on this experiment.
    """
    experiment = without_left_out(experiment)
    directory = RunDirectory(experiment)
    for what in ("retrieval", "sampling", "reranking"):
        inputs = directory.inputs_of(what)
        require(directory.search(what), inputs, "search", experiment.name, experiment.time_limit)


def _combine(experiment_json: str, commit_: str) -> list[str]:
    """Write everything, and return what the user should know: what looks wrong, and what could not be computed."""
    experiment = Experiment.model_validate_json(experiment_json)
    directory = RunDirectory(experiment)
    directory.ensemble.mkdir(parents=True, exist_ok=True)
    for what in ("retrieval", "reranking"):
        storage.pull(directory.search(what))
    members = TrainedMembers(experiment, SPLIT)
    best = BestReranking.read(directory.search("reranking"))
    reranking = best.reranking
    chosen = _choose_captions(members, reranking, best.alone or {})
    choices = {f"{name}/rerank": (best.alone or {}).get(name, reranking) for name in experiment.caption_sources()}
    sampling = BestSampling.read(directory.search("sampling")).sampling
    seconds = system_seconds(members, sampling, {**choices, "ensemble": reranking})
    retrieval = _retrieve(members)
    seconds.model_copy(update={"retrieval_columns": retrieval.costs}).write(directory.ensemble)
    with ThreadPoolExecutor(1) as pool:  # of what METEOR takes, most is that of other processes
        scoring = pool.submit(_score, {**chosen.texts, UNFILTERED: chosen.unfiltered}, members.features.captions)
        worth = member_worth(members)
    captioning = _describe_captions(members, chosen, scoring.result())
    EnsembleMetrics(
        corpus=experiment.target_corpus,
        corpus_kind=experiment.corpora[experiment.target_corpus].kind,
        split=SPLIT,
        clips=len(members.features),
        seed=experiment.seed,
        commit=commit_,
        packages=package_versions(),
        captioning=captioning.systems,
        captioning_details=captioning.details,
        retrieval=retrieval.text_to_audio,
        retrieval_audio_to_text=retrieval.audio_to_text,
        retrieval_transport=retrieval.transport,
        retrieval_details=retrieval.details,
        retrieval_chance=chance_map10(len(members.features)),
        comparisons=captioning.comparisons + retrieval.comparisons,
        leave_one_out=worth.leave_one_out,
        forward_selection=worth.forward_selection,
        fluency_detector=_detection(members, reranking.fluency_threshold),
    ).write(directory.ensemble)
    storage.push(directory.ensemble)
    return captioning.warnings + retrieval.warnings


def _detection(members: TrainedMembers, threshold: float) -> Detection | None:
    """Measure the fluency detector on the references, and on the same references damaged."""
    if not members.detector:
        return None
    found = detection(members.detector, members.queries()[0], threshold, members.experiment.seed)
    return Detection.model_validate(found)


# --- captioning ----------------------------------------------------------------------------------------------------


def _choose_captions(members: TrainedMembers, reranking: Reranking, alone: Mapping[str, Reranking]) -> Chosen:
    """Choose the captions of every system; write all candidates, and the captions of the ensemble.

    Args:
        alone: how each captioner's own candidates are chosen from; of earlier searches, as the ensemble's are, from its
            samples.
    """
    experiment, target = members.experiment, members.directory.ensemble
    table = members.candidates(BestSampling.read(members.directory.search("sampling")).sampling)
    texts, sources = {}, experiment.caption_sources()
    for name in sources:
        beam = table.of_captioner(f"{name}/beam")
        texts[f"{name}/beam"] = _texts(beam, reranking.choose(beam))
    for name in sources:
        if name in alone:
            texts[f"{name}/rerank"] = _texts(table, alone[name].choose(table))
        else:
            samples = table.of_captioner(name)
            texts[f"{name}/rerank"] = _texts(samples, reranking.choose(samples))
    texts["ensemble"] = _texts(table, reranking.choose(table))
    # the fluency detector cannot judge its own filter: its effect is measured without it, too
    unfiltered = _texts(table, reranking.model_copy(update={"fluency_threshold": 1.0}).choose(table))
    write_candidates(target, members.features.clip_ids, table, reranking)
    warnings = write_test_captions(target / "captions.csv", members.features.file_names, texts["ensemble"])
    return Chosen(texts, unfiltered, warnings)


def _describe_captions(members: TrainedMembers, chosen: Chosen, scores: dict[str, CaptionScores]) -> Captioning:
    """Return what the scores say of every system, and compare them; write the values of all clips.

    Args:
        scores: of `chosen.texts`, and of `chosen.unfiltered` as `UNFILTERED`.
    """
    experiment, texts = members.experiment, chosen.texts
    scores, unfiltered_score = {name: scores[name] for name in texts}, scores[UNFILTERED]
    frame = _values_of_clips(members.features.clip_ids, texts, scores)
    write_frame(members.directory.ensemble / CAPTION_VALUES, frame)
    diversity = caption_diversity(texts["ensemble"])
    warnings = [*chosen.warnings, *filter(None, [collapse_warning(diversity)])]
    warnings += [f"not computed: {line}" for line in scores["ensemble"].absences]
    return Captioning(
        systems={name: _values(members, scores[name], texts[name]) for name in texts},
        details=CaptioningDetails(
            **scores["ensemble"].details,
            diversity=diversity,
            unfiltered=_values(members, unfiltered_score, chosen.unfiltered),
        ),
        comparisons=[
            SystemComparison.of(metric, "ensemble", other, _compare_captions(scores, metric, other, experiment.seed))
            for metric in COMPARED
            if all(metric in score.per_clip for score in scores.values())
            for other in (f"{name}/{how}" for name in experiment.caption_sources() for how in ("beam", "rerank"))
        ],
        warnings=warnings,
    )


def _values(members: TrainedMembers, score: CaptionScores, texts: list[str]) -> Values:
    """Return the metrics of a system's captions, with their fluency error and the number of different ones."""
    values: Values = dict(score.corpus)
    if members.detector:
        values["fluency_error"] = float(members.detector.fluency_error(texts).mean())
    return values | {"unique_captions": len(set(texts))}


def _score(systems: dict[str, list[str]], references: list[list[str]]) -> dict[str, CaptionScores]:
    """Score the captions of every system, two at a time, for METEOR's Java works alone; equal captions only once."""
    different = list({tuple(texts): None for texts in systems.values()})
    preprocessing = best_preprocessing()
    with ThreadPoolExecutor(SCORED_AT_ONCE) as pool:
        found = pool.map(lambda texts: caption_values([*texts], references, preprocessing=preprocessing), different)
        scores = dict(zip(different, found, strict=True))
    return {name: scores[tuple(texts)] for name, texts in systems.items()}


def _values_of_clips(
    clip_ids: list[str], systems: dict[str, list[str]], scores: dict[str, CaptionScores]
) -> pd.DataFrame:
    """Return one row per system and clip: the caption, and every metric that has a value for each clip."""
    frames = [
        pd.DataFrame({"system": name, "clip_id": clip_ids, "caption": texts}).join(scores[name].per_clip)
        for name, texts in systems.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _texts(table: CandidateTable, chosen: np.ndarray) -> list[str]:
    return [texts[column] for texts, column in zip(table.texts, chosen, strict=True)]


def _compare_captions(scores: dict[str, CaptionScores], metric: str, other: str, seed: int) -> Comparison:
    ensemble, single = (scores[system].per_clip[metric].to_numpy() for system in ("ensemble", other))
    return paired_bootstrap(ensemble, single, seed=seed)


def write_candidates(target: Path, clip_ids: list[str], table: CandidateTable, reranking: Reranking) -> None:
    """Write candidates.parquet: every candidate with its scores, their weighted sum, and whether it is chosen."""
    rows, columns = np.nonzero(table.mask)
    chosen = columns == reranking.choose(table)[rows]
    frame = table.to_frame(clip_ids).assign(score=reranking.totals(table)[table.mask], chosen=chosen)
    write_frame(target / "candidates.parquet", frame)


def write_test_captions(path: Path, file_names: list[str], captions: list[str]) -> list[str]:
    """Write DCASE Task 6's file_name,caption_predicted; if it breaks a rule, write it all the same and return why."""
    try:
        write_captions(path, file_names, captions, file_names)
    except SubmissionError as error:
        frame = pd.DataFrame({"file_name": file_names, "caption_predicted": captions})
        write_text(path, frame.to_csv(index=False))
        return [f"no submission: {error}"]
    return []


# --- retrieval -----------------------------------------------------------------------------------------------------


def _retrieve(members: TrainedMembers) -> Retrieval:
    """Score every system in both directions, and write the ensemble's ranking."""
    experiment, directory = members.experiment, members.directory
    queries, target = members.queries()
    best = BestRetrieval.read(directory.search("retrieval"))
    fusion, similarities, costs = best.fusion, members.similarities(), None
    systems = {**similarities, "ensemble": fusion.join(similarities)}
    if best.with_captioners:
        columns = members.captioner_columns()
        systems[HELPED] = best.with_captioners.convert(RetrievalFusion).join({**similarities, **columns.similarities})
        costs = column_costs(columns)
    warnings = write_ranking(directory.ensemble, queries, systems["ensemble"], members.features.file_names)
    scores = {name: retrieval_values(similarity, target) for name, similarity in systems.items()}
    clips = [members.features.clip_ids[clip] for clip in target]
    write_frame(directory.ensemble / RETRIEVAL_VALUES, values_of_queries(clips, queries, scores))
    # transposed before fusing: where clips are the queries, similarities are normalised within a clip
    transposed = {name: similarity.T for name, similarity in similarities.items()}
    transposed["ensemble"] = fusion.join(transposed)
    plans: dict[str, np.ndarray] = {}
    if experiment.search.transport_ranking:
        for name, similarity in similarities.items():
            plans[name] = transport_similarity(similarity, members.retrievers[name].config.epsilon)
        plans["ensemble"] = fusion.join(plans)
    return Retrieval(
        text_to_audio={name: dict(score.corpus) for name, score in scores.items()},
        audio_to_text={name: dict(_audio_to_text(one, target).corpus) for name, one in transposed.items()},
        transport={name: dict(retrieval_values(plan, target).corpus) for name, plan in plans.items()} or None,
        comparisons=[
            SystemComparison.of("map@10", "ensemble", name, _compare_retrieval(scores, name, target, experiment.seed))
            for name in systems
            if name != "ensemble"
        ],
        warnings=warnings,
        costs=costs,
    )


def values_of_queries(clip_ids: list[str], queries: list[str], scores: dict[str, RetrievalScores]) -> pd.DataFrame:
    """Return one row per system and query: its clip, the rank of that clip, and the average precision at 10."""
    frames = [
        pd.DataFrame(
            {
                "system": name,
                "clip_id": clip_ids,
                "caption": queries,
                "rank": score.ranks,
                "map@10": score.average_precision,
            }
        )
        for name, score in scores.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _audio_to_text(similarity: np.ndarray, target: np.ndarray) -> RetrievalScores:
    """Return the values of a similarity [clips, captions]."""
    return retrieval_values_in_blocks(lambda rows: similarity[rows], relevant_of(target, len(similarity)), len(target))


def _compare_retrieval(scores: dict[str, RetrievalScores], other: str, target: np.ndarray, seed: int) -> Comparison:
    """Compare query by query, resampling the captions of a clip together: they are not independent queries."""
    ensemble, single = scores["ensemble"].average_precision, scores[other].average_precision
    return paired_bootstrap(ensemble, single, seed=seed, groups=target)


def write_ranking(target: Path, queries: list[str], similarity: np.ndarray, file_names: list[str]) -> list[str]:
    """Write DCASE Task 8's caption,fname_1,...,fname_10, best first.

    If it breaks a rule, as with fewer than ten files, write it all the same and return why.
    """
    best = np.array(file_names)[np.argsort(-similarity, axis=1, kind="stable")[:, :LISTED]]
    try:
        write_retrieval(target / "retrieval.csv", queries, best.tolist(), file_names)
    except SubmissionError as error:
        frame = pd.DataFrame(best, columns=[f"fname_{rank + 1}" for rank in range(best.shape[1])])
        frame.insert(0, "caption", queries)
        write_text(target / "retrieval.csv", frame.to_csv(index=False))
        return [f"no submission: {error}"]
    return []


if __name__ == "__main__":
    run_command("combine")
