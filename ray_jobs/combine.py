"""combine: the ensemble on the test split, once, with what search chose: submissions, metrics, comparisons.

Example: enclap combine experiments/demo.yaml
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray

from models.ensemble.candidate_table import CandidateTable
from models.files import write_frame, write_json
from models.fluency.detector import detection
from models.metrics.bootstrap import paired_bootstrap
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
from ray_jobs.run import storage
from ray_jobs.run.console import say
from ray_jobs.run.directory import RunDirectory, commit, is_done, mark_done, package_versions, require
from ray_jobs.run.entry import run_command
from ray_jobs.tuning.candidate_store import resources
from ray_jobs.tuning.chosen import best_reranking, best_retrieval, best_sampling
from ray_jobs.tuning.member_worth import member_worth
from ray_jobs.tuning.trained_members import TrainedMembers

SPLIT = "test"
COMPARED = ("cider_d", "spider_fl", "fense")  # those that were computed
TRANSDUCTIVE = "transductive: ranked by the transport plan of all queries and clips, not query by query"


def run(experiment: Experiment) -> None:
    """Fill ensemble/ with candidates, captions.csv, caption_values, retrieval.csv and metrics.json."""
    directory = RunDirectory(experiment)
    for what in ("retrieval", "sampling", "reranking"):
        require(directory.search(what), directory.search_inputs(), "search", experiment.name)
    if is_done(directory.ensemble, directory.search_inputs()):
        say("combine: done already")
        return
    say("combine: candidates of the test split")
    gpus = resources(experiment.search)["gpu"]
    combined = ray.remote(num_cpus=1, num_gpus=gpus)(_combine).remote(experiment.model_dump_json(), commit())
    for line in ray.get(combined):
        say(f"combine: {line}", "yellow")
    mark_done(directory.ensemble, directory.search_inputs())
    say(f"combine: {storage.uri(directory.ensemble)}")


def _combine(experiment_json: str, commit_: str) -> list[str]:
    """Do it; returns what the user should know: what looks wrong, and what could not be computed."""
    experiment = Experiment.model_validate_json(experiment_json)
    directory = RunDirectory(experiment)
    directory.ensemble.mkdir(parents=True, exist_ok=True)
    for what in ("retrieval", "reranking"):
        storage.pull(directory.search(what))
    members = TrainedMembers(experiment, SPLIT)
    captioning, caption_comparisons, details, warnings = _caption(experiment, directory, members)
    retrieval, retrieval_comparisons, retrieval_warnings = _retrieve(directory, members)
    write_json(
        directory.ensemble / "metrics.json",
        {
            "corpus": experiment.target_corpus,
            "corpus_kind": experiment.corpora[experiment.target_corpus].kind,
            "split": SPLIT,
            "clips": len(members.features),
            "seed": experiment.seed,
            "commit": commit_,
            "packages": package_versions(),
            "captioning": captioning,
            "captioning_details": details,
            **retrieval,
            "retrieval_chance_map@10": chance_map10(len(members.features)),
            "comparisons": caption_comparisons + retrieval_comparisons,
            **member_worth(members),
            "fluency_detector": _detection(experiment, directory, members),
        },
    )
    storage.push(directory.ensemble)
    return warnings + retrieval_warnings


def _detection(experiment: Experiment, directory: RunDirectory, members: TrainedMembers) -> dict[str, Any] | None:
    """What the detector that filters makes of the references, and of the same damaged."""
    if not members.detector:
        return None
    threshold = best_reranking(directory.search("reranking")).fluency_threshold
    return detection(members.detector, members.queries()[0], threshold, experiment.seed)


# --- captioning ----------------------------------------------------------------------------------------------------


def _caption(
    experiment: Experiment, directory: RunDirectory, members: TrainedMembers
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any], list[str]]:
    """Write candidates, captions and their values.

    Returns:
        Each system's values, the comparisons, how values were computed, and warnings.
    """
    reranking = best_reranking(directory.search("reranking"))
    table = members.candidates(best_sampling(directory.search("sampling")))
    chosen = reranking.choose(table)
    systems, caption_sources = {}, experiment.caption_sources()
    for how, suffix in {"beam": "/beam", "rerank": ""}.items():
        for name in caption_sources:
            own = table.of_captioner(name + suffix)
            systems[f"{name}/{how}"] = _texts(own, reranking.choose(own))
    systems["ensemble"] = _texts(table, chosen)
    # the detector that filters is no judge of its own filter
    unfiltered = _texts(table, reranking.model_copy(update={"fluency_threshold": 1.0}).choose(table))
    _write_candidates(directory.ensemble, members.features.clip_ids, table, reranking.totals(table), chosen)
    warnings = _write_captions(directory.ensemble / "captions.csv", members.features.file_names, systems["ensemble"])
    references = members.features.captions
    scores = _score(systems, references)
    without_filter = dict(_score({"": unfiltered}, references)[""].corpus)
    write_frame(
        directory.ensemble / "caption_values.parquet", _values_of_clips(members.features.clip_ids, systems, scores)
    )
    values = {system: dict(score.corpus) for system, score in scores.items()}
    for found, texts in [*((values[name], texts) for name, texts in systems.items()), (without_filter, unfiltered)]:
        if members.detector:
            found["fluency_error"] = float(members.detector.fluency_error(texts).mean())
        found["unique_captions"] = len(set(texts))
    others = [f"{name}/{how}" for name in caption_sources for how in ("beam", "rerank")]
    comparisons = [
        _compare_captions(scores, metric, other, experiment.seed)
        for metric in COMPARED
        if all(metric in score.per_clip for score in scores.values())
        for other in others
    ]
    diversity = caption_diversity(systems["ensemble"])
    warnings += filter(None, [collapse_warning(diversity)])
    warnings += [f"not computed: {line}" for line in scores["ensemble"].absences]
    details = {**scores["ensemble"].details, "diversity": diversity, "unfiltered": without_filter}
    return values, comparisons, details, warnings


def _score(systems: dict[str, list[str]], references: list[list[str]]) -> dict[str, CaptionScores]:
    preprocessing = best_preprocessing()
    return {name: caption_values(texts, references, preprocessing=preprocessing) for name, texts in systems.items()}


def _values_of_clips(
    clip_ids: list[str], systems: dict[str, list[str]], scores: dict[str, CaptionScores]
) -> pd.DataFrame:
    """A row a system and clip: the caption, and every metric that has values of clips."""
    frames = [
        pd.DataFrame({"system": name, "clip_id": clip_ids, "caption": texts}).join(scores[name].per_clip)
        for name, texts in systems.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _texts(table: CandidateTable, chosen: np.ndarray) -> list[str]:
    return [texts[column] for texts, column in zip(table.texts, chosen, strict=True)]


def _compare_captions(scores: dict[str, CaptionScores], metric: str, other: str, seed: int) -> dict[str, Any]:
    ensemble, single = (scores[system].per_clip[metric].to_numpy() for system in ("ensemble", other))
    comparison = paired_bootstrap(ensemble, single, seed=seed)
    return {"metric": metric, "a": "ensemble", "b": other, "delta": comparison.delta, "ci95": list(comparison.ci95)}


def _write_candidates(
    target: Path, clip_ids: list[str], table: CandidateTable, totals: np.ndarray, chosen: np.ndarray
) -> None:
    rows, columns = np.nonzero(table.mask)
    frame = table.to_frame(clip_ids).assign(score=totals[table.mask], chosen=columns == chosen[rows])
    write_frame(target / "candidates.parquet", frame)


def _write_captions(path: Path, file_names: list[str], captions: list[str]) -> list[str]:
    """DCASE Task 6: file_name,caption_predicted; what is no submission is written, too, and the reason returned."""
    try:
        write_captions(path, file_names, captions, file_names)
    except SubmissionError as error:
        pd.DataFrame({"file_name": file_names, "caption_predicted": captions}).to_csv(path, index=False)
        return [f"no submission: {error}"]
    return []


# --- retrieval -----------------------------------------------------------------------------------------------------


def _retrieve(
    directory: RunDirectory, members: TrainedMembers
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """Write the ranking; returns each system's values by direction, the comparisons, and warnings."""
    queries, target = members.queries()
    fusion = best_retrieval(directory.search("retrieval"))
    similarities = members.similarities()
    systems = {**similarities, "ensemble": fusion.join(similarities)}
    warnings = _write_retrieval(directory.ensemble, queries, systems["ensemble"], members.features.file_names)
    # A normalisation within a query is one within a clip when clips are the queries.
    transposed = {name: one.T for name, one in similarities.items()}
    values = {
        "retrieval": {name: retrieval_values(one, target) for name, one in systems.items()},
        "retrieval_audio_to_text": {
            name: _audio_to_text(one, target)
            for name, one in {**transposed, "ensemble": fusion.join(transposed)}.items()
        },
    }
    if members.experiment.search.transport_ranking:
        plans = {
            name: transport_similarity(one, members.retrievers[name].config.epsilon)
            for name, one in similarities.items()
        }
        plans["ensemble"] = fusion.join(plans)
        values["retrieval_transport"] = {name: retrieval_values(one, target) for name, one in plans.items()}
    comparisons = [
        _compare_retrieval(values["retrieval"], name, target, members.experiment.seed) for name in similarities
    ]
    found: dict[str, Any] = {what: {name: one.corpus for name, one in of.items()} for what, of in values.items()}
    found["retrieval_details"] = {
        "retrieval": "text to audio, plain distance query by query",
        "retrieval_audio_to_text": "R@k: any caption of the clip; AP@10 over all of them",
        **({"retrieval_transport": TRANSDUCTIVE} if "retrieval_transport" in values else {}),
    }
    return found, comparisons, warnings


def _audio_to_text(similarity: np.ndarray, target: np.ndarray) -> RetrievalScores:
    """Values of similarity [clips, captions]."""
    return retrieval_values_in_blocks(lambda rows: similarity[rows], relevant_of(target, len(similarity)), len(target))


def _compare_retrieval(scores: dict[str, RetrievalScores], other: str, target: np.ndarray, seed: int) -> dict[str, Any]:
    """The captions of a clip are resampled together: they are no independent queries."""
    ensemble, single = scores["ensemble"].average_precision, scores[other].average_precision
    comparison = paired_bootstrap(ensemble, single, seed=seed, groups=target)
    return {"metric": "map@10", "a": "ensemble", "b": other, "delta": comparison.delta, "ci95": list(comparison.ci95)}


def _write_retrieval(target: Path, queries: list[str], similarity: np.ndarray, file_names: list[str]) -> list[str]:
    """DCASE Task 8: caption,fname_1,...,fname_10, best first; what is no submission, as with fewer files, is written,
    too, and the reason returned."""
    best = np.array(file_names)[np.argsort(-similarity, axis=1, kind="stable")[:, :LISTED]]
    try:
        write_retrieval(target / "retrieval.csv", queries, best.tolist(), file_names)
    except SubmissionError as error:
        frame = pd.DataFrame(best, columns=[f"fname_{rank + 1}" for rank in range(best.shape[1])])
        frame.insert(0, "caption", queries)
        frame.to_csv(target / "retrieval.csv", index=False)
        return [f"no submission: {error}"]
    return []


if __name__ == "__main__":
    run_command("combine")
