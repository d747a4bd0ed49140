"""combine --members: combine some members of a run that is combined already, without training or drawing anything.

Example: enclap combine experiments/demo.yaml --members retriever-bge,captioner-bpe
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import ray

from models.console import say
from models.ensemble.candidate_table import CandidateTable, ValuedTable
from models.files import write_frame
from models.metrics.bootstrap import paired_bootstrap
from models.metrics.captions import best_preprocessing, caption_values
from models.metrics.retrieval import retrieval_values
from models.selection.leave_one_out import Group, choose_captions, search_captioning, solve_retrieval
from ray_jobs.combine import SPLIT, values_of_queries, write_ranking, write_test_captions
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.subset import with_members
from ray_jobs.results.best import BestReranking
from ray_jobs.results.metrics import CAPTION_VALUES, RETRIEVAL_VALUES, EnsembleMetrics, SystemComparison
from ray_jobs.results.some_members import SomeCaptioning, SomeMembersMetrics, SomeRetrieval
from ray_jobs.results.table import OF_CANDIDATES, read_table
from ray_jobs.results.time_limit import refuse_left_out, without_left_out
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, mark_done, require
from ray_jobs.tuning.candidate_store import resources
from ray_jobs.tuning.inner_search import reranking_options
from ray_jobs.tuning.retrieval import retrieval_options, split_target
from ray_jobs.tuning.trained_members import TrainedMembers

THESE = "these members"


def run(experiment: Experiment, names: list[str]) -> None:
    """Fill ensemble-<names>/ with metrics.json, captions.csv, caption_values and retrieval.csv of some members.

    Their weights are searched anew on the validation candidates and similarities that the search kept, and valued on
    the test candidates that `combine` kept. Only retrievers run, to embed the queries of the test split.

    Raises:
        ConfigError: if these members cannot work alone.
        NotReadyError: if `combine` has not run on the whole experiment.
    """
    check(experiment, names)
    experiment = without_left_out(experiment)
    some = with_members(experiment, names)
    directory = RunDirectory(experiment)
    experiment.search.choose_objective(BestReranking.read(directory.search("reranking")).objective)
    gpus = resources(some.search)["gpu"]
    combined = ray.remote(num_cpus=1, num_gpus=gpus)(combine_some).remote(experiment.model_dump_json(), names)
    for line in ray.get(combined):
        say(f"combine: {line}", "yellow")
    target = directory.ensemble_of(list(some.members))
    mark_done(target, directory.results_inputs())
    say(f"combine: {storage.uri(target)}")


def check(experiment: Experiment, names: list[str]) -> None:
    """Check that these members can be combined; Ray need not run.

    Raises:
        ConfigError, NotReadyError: see `run`.
        TimeLimitError: if the time limit left one of them out.
    """
    refuse_left_out(experiment, names)
    experiment = without_left_out(experiment)
    if outside := [name for name in names if name in experiment.members and name not in experiment.ensemble()]:
        taking_part = ", ".join(experiment.ensemble())
        raise ConfigError(
            f"--members: {outside[0]!r} only trains others; expected members of the ensemble: {taking_part}"
        )
    with_members(experiment, names)
    directory = RunDirectory(experiment)
    require(directory.ensemble, directory.results_inputs(), "combine", experiment.name)


def combine_some(experiment_json: str, names: list[str]) -> list[str]:
    """Write everything but the marker; return what the user should know."""
    some = with_members(Experiment.model_validate_json(experiment_json), names)
    directory, members = RunDirectory(some), TrainedMembers(some, SPLIT)
    for path in (directory.search("reranking"), directory.search("retrieval"), directory.ensemble):
        storage.pull(path)
    detectors = some.of_kind("fluency-detector")
    group = Group(
        tuple(some.of_kind("captioner")), tuple(some.of_kind("retriever")), detectors[0] if detectors else None
    )
    target = directory.ensemble_of(list(some.members))
    warnings: list[str] = []
    SomeMembersMetrics(
        members=list(some.members),
        objective=some.search.objective,
        split=SPLIT,
        clips=len(members.features),
        captioning=_caption(members, group, target, warnings) if group.captioners else None,
        retrieval=_retrieve(members, group, target, warnings) if group.retrievers else None,
    ).write(target)
    storage.push(target)
    return warnings


def _caption(members: TrainedMembers, group: Group, target: Path, warnings: list[str]) -> SomeCaptioning:
    some, directory, features = members.experiment, members.directory, members.features
    objective = some.search.objective
    known = _table(directory.search("reranking") / "candidates.parquet", BestReranking.COMMAND)
    own = _table(directory.ensemble / "candidates.parquet", EnsembleMetrics.COMMAND, features.clip_ids).table
    found = search_captioning(group, known.table, known.values[objective], reranking_options(some))
    chosen = choose_captions(group, found.reranking, own)
    texts = [said[column] for said, column in zip(own.texts, chosen, strict=True)]
    scores = caption_values(texts, features.captions, preprocessing=best_preprocessing())
    warnings += write_test_captions(target / "captions.csv", features.file_names, texts)
    write_frame(target / CAPTION_VALUES, scores.per_clip.assign(clip_id=features.clip_ids, caption=texts))
    columns = ("system", "clip_id", objective)
    everybody = read_table(directory.ensemble / CAPTION_VALUES, EnsembleMetrics.COMMAND, columns)
    full = everybody[everybody["system"] == "ensemble"].set_index("clip_id").loc[features.clip_ids, objective]
    compared = paired_bootstrap(scores.per_clip[objective].to_numpy(), full.to_numpy(), seed=some.seed)
    return SomeCaptioning(
        reranking=found.reranking,
        cross_validated=found.solution.cross_validated,
        values=dict(scores.corpus),
        comparison=SystemComparison.of(objective, THESE, "ensemble", compared),
    )


def _retrieve(members: TrainedMembers, group: Group, target: Path, warnings: list[str]) -> SomeRetrieval:
    some, directory = members.experiment, members.directory
    with np.load(directory.search("retrieval") / "similarities.npz") as file:
        known, known_target = split_target(dict(file))
    fusion, cross_validated = solve_retrieval(group.retrievers, known, known_target, retrieval_options(some))
    queries, right = members.queries()
    similarity = fusion.join(members.similarities())
    scores = retrieval_values(similarity, right)
    warnings += write_ranking(target, queries, similarity, members.features.file_names)
    clips = [members.features.clip_ids[clip] for clip in right]
    write_frame(target / RETRIEVAL_VALUES, values_of_queries(clips, queries, {"ensemble": scores}))
    comparison = None
    if storage.exists(directory.ensemble / RETRIEVAL_VALUES):
        everybody = read_table(directory.ensemble / RETRIEVAL_VALUES, EnsembleMetrics.COMMAND, ("system", "map@10"))
        full = everybody.loc[everybody["system"] == "ensemble", "map@10"].to_numpy()
        found = paired_bootstrap(scores.average_precision, full, seed=some.seed, groups=right)
        comparison = SystemComparison.of("map@10", THESE, "ensemble", found)
    return SomeRetrieval(
        fusion=fusion, cross_validated=cross_validated, values=dict(scores.corpus), comparison=comparison
    )


def _table(path: Path, command: str, clip_ids: list[str] | None = None) -> ValuedTable:
    frame = read_table(path, command, OF_CANDIDATES)
    return CandidateTable.from_frame(frame, clip_ids or list(dict.fromkeys(frame["clip_id"])))
