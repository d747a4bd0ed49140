"""Select members one by one on validation, by what the searches kept: no model runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from models.ensemble.candidate_table import CandidateTable, ValuedTable
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.selection.leave_one_out import Budget, Group, Step, forward_selection, search_captioning, solve_retrieval
from models.selection.reranking_weights import RerankingOptions
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.member_config import CaptionerMember
from ray_jobs.results.best import BestReranking, BestRetrieval
from ray_jobs.results.member import MemberMetrics
from ray_jobs.results.table import OF_CANDIDATES, read_table
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory
from ray_jobs.tuning.inner_search import quick, reranking_options
from ray_jobs.tuning.retrieval import retrieval_options, split_target


def select_within(experiment: Experiment, limit: int) -> list[str]:
    """Return the members that the forward selection takes as long as all of them have `limit` parameters at most.

    Those that caption are selected first. Retrievers are then selected with what is left, those that captioners read
    at no further cost. Token ensembles are not considered: no export of some members has them.

    Raises:
        ConfigError: if no member that works alone is that small.
    """
    directory, sizes = RunDirectory(experiment), {}
    for search in ("reranking", "retrieval"):
        storage.pull(directory.search(search))
    for name in experiment.ensemble():
        sizes[name] = MemberMetrics.read(directory.member(name)).parameters
    everybody = replace(all_members(experiment), captioners=tuple(experiment.of_kind("captioner")))
    found: list[str] = []
    if everybody.captioners:
        known, options = known_candidates(directory), captioning_options(experiment, directory)
        value = known.values[experiment.search.objective]
        within = {"parameters": Budget(sizes, limit)}

        def worth(group: Group) -> float:
            return search_captioning(group, known.table, value, options).solution.cross_validated

        found += taken(forward_selection(everybody, worth, needs(experiment), within, everybody.captioners))
    if everybody.retrievers:
        alone, solve = Group(retrievers=everybody.retrievers), retrieval_solver(experiment, directory)
        left = {name: 0 if name in found else size for name, size in sizes.items()}
        within = {"parameters": Budget(left, limit - sum(sizes[name] for name in found))}
        found += taken(forward_selection(alone, lambda group: solve(group.retrievers)[1], {}, within, alone.retrievers))
    if not found:
        smallest = min(sizes[name] for name in everybody.retrievers or everybody.captioners)
        raise ConfigError(f"--max-parameters: found {limit}, expected {smallest} or more: no member alone is smaller")
    return [name for name in experiment.members if name in found]


def taken(steps: Sequence[Step]) -> list[str]:
    """Return the members of the steps up to the highest value."""
    return [name for step in steps[: last_taken(steps) + 1] for name in step.added]


def last_taken(steps: Sequence[Step]) -> int:
    """Return the number of the step of the highest value, -1 where there is none."""
    return max(range(len(steps)), key=lambda step: steps[step].value, default=-1)


def all_members(experiment: Experiment) -> Group:
    """Return the members of the ensemble, token ensembles among the captioners."""
    detectors = experiment.of_kind("fluency-detector")
    return Group(
        tuple(experiment.caption_sources()),
        tuple(experiment.of_kind("retriever")),
        detectors[0] if detectors else None,
    )


def needs(experiment: Experiment) -> dict[str, list[str]]:
    """Return the members that each captioner or token ensemble cannot work without."""
    read = {n: m.retrievers() for n, m in experiment.members.items() if isinstance(m, CaptionerMember)}
    joint = {
        name: list(dict.fromkeys([*config.members, *(r for member in config.members for r in read[member])]))
        for name, config in experiment.token_ensembles.items()
    }
    return {**read, **joint}


def known_candidates(directory: RunDirectory) -> ValuedTable:
    """Return the candidates of the validation split that the search kept."""
    frame = read_table(directory.search("reranking") / "candidates.parquet", BestReranking.COMMAND, OF_CANDIDATES)
    return CandidateTable.from_frame(frame, list(dict.fromkeys(frame["clip_id"])))


def captioning_options(experiment: Experiment, directory: RunDirectory) -> RerankingOptions:
    """Return the options by which groups are valued: others are solved as the whole was, not by every rule again."""
    best = BestReranking.read(directory.search("reranking"))
    return replace(quick(reranking_options(experiment)), normalisation=best.normalisation)


def retrieval_solver(
    experiment: Experiment, directory: RunDirectory
) -> Callable[[tuple[str, ...]], tuple[RetrievalFusion, float]]:
    """Return what finds the fusion of some retrievers on validation, and its cross-validated mAP@10."""
    with np.load(directory.search("retrieval") / "similarities.npz") as file:
        known, target = split_target(dict(file))
    best = BestRetrieval.read(directory.search("retrieval"))
    options = replace(
        retrieval_options(experiment), rule=best.rule, normalisation=best.normalisation, compare_single=False
    )
    return cache(lambda names: solve_retrieval(names, known, target, options))
