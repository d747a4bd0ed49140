"""What each member adds to the ensemble, and a forward selection of members, for metrics.json.

From what search and combine hold already: no model runs, but to measure seconds where `search.latency_budget` asks.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.ensemble.candidate_table import VALUE, CandidateTable
from models.metrics.retrieval import retrieval_values
from models.selection.leave_one_out import (
    Added,
    Budget,
    Group,
    Step,
    choose_captions,
    forward_selection,
    leave_one_out,
    solve_captioning,
    solve_retrieval,
)
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import CaptionerMember
from ray_jobs.run import storage
from ray_jobs.tuning.candidate_store import add_values
from ray_jobs.tuning.chosen import best_sampling
from ray_jobs.tuning.retrieval import retrieval_options, split_target
from ray_jobs.tuning.sampling import reranking_options
from ray_jobs.tuning.trained_members import TrainedMembers


def member_worth(members: TrainedMembers) -> dict[str, Any]:
    """`leave_one_out` (on the split of `members`, with what combine wrote) and `forward_selection` (on validation)."""
    experiment = members.experiment
    detectors = experiment.of_kind("fluency-detector")
    everybody = Group(
        tuple(experiment.caption_sources()),
        tuple(experiment.of_kind("retriever")),
        detectors[0] if detectors else None,
    )
    budgets = _budgets(members)
    captioning, captioning_steps = _captioning(members, everybody, budgets) if everybody.captioners else ([], [])
    retrieval, retrieval_steps = _retrieval(members, everybody, budgets) if everybody.retrievers else ([], [])
    return {
        "leave_one_out": captioning + retrieval,
        "forward_selection": {
            "budget": experiment.search.size_budget, "latency_budget": experiment.search.latency_budget,
            "captioning": captioning_steps, "retrieval": retrieval_steps,
        },
    }  # fmt: skip


def _captioning(
    members: TrainedMembers, everybody: Group, budgets: dict[str, Budget]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    experiment, directory = members.experiment, members.directory
    objective, options = experiment.search.objective, reranking_options(experiment)
    known, values = _table(directory.search("reranking") / "candidates.parquet")
    clip_ids = members.features.clip_ids
    frame = pd.read_parquet(directory.ensemble / "candidates.parquet")
    frame = add_values(frame, clip_ids, members.features.captions, [objective])
    # a column like a metric's: 1 for the candidate that the ensemble chose
    table, own = CandidateTable.from_frame(frame.rename(columns={"chosen": VALUE + "chosen"}), clip_ids)
    solve = cache(lambda group: solve_captioning(group, known, values[objective], options))

    def values_at(chosen: np.ndarray) -> np.ndarray:
        return np.take_along_axis(own[objective], chosen[:, None], 1)[:, 0]

    def values_of(group: Group) -> np.ndarray:
        return values_at(choose_captions(group, solve(group)[0], table))

    alone = everybody.captioners[0] if len(everybody.captioners) == 1 else None  # nothing would be said without it
    others = [member for member in everybody.members if member != alone]
    parts = {name: joint.members for name, joint in experiment.token_ensembles.items()}
    full = values_at(own["chosen"].argmax(1))
    added = leave_one_out(everybody, others, full, values_of, experiment.seed, parts=parts)
    steps = forward_selection(
        everybody, lambda group: solve(group)[1], _needs(experiment), budgets, everybody.captioners
    )
    return _added("captioning", objective, added), _steps(steps)


def _retrieval(
    members: TrainedMembers, everybody: Group, budgets: dict[str, Budget]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    experiment, directory = members.experiment, members.directory
    with np.load(directory.search("retrieval") / "similarities.npz") as file:
        known, known_target = split_target(dict(file))
    similarities, (_, target) = members.similarities(), members.queries()
    options = retrieval_options(experiment)
    solve = cache(lambda names: solve_retrieval(names, known, known_target, options))
    alone = Group(retrievers=everybody.retrievers)

    def values_of(group: Group) -> np.ndarray:
        return retrieval_values(solve(group.retrievers)[0].join(similarities), target).average_precision

    others = alone.retrievers if len(alone.retrievers) > 1 else ()
    added = leave_one_out(alone, others, values_of(alone), values_of, experiment.seed, groups=target)
    steps = forward_selection(alone, lambda group: solve(group.retrievers)[1], {}, budgets, alone.retrievers)
    return _added("retrieval", "map@10", added), _steps(steps)


def _table(path: Path) -> tuple[CandidateTable, dict[str, np.ndarray]]:
    frame = pd.read_parquet(path)
    return CandidateTable.from_frame(frame, list(dict.fromkeys(frame["clip_id"])))


def _needs(experiment: Experiment) -> dict[str, list[str]]:
    """Whom captioners, single or joint, cannot work without."""
    read = {n: m.retrievers() for n, m in experiment.members.items() if isinstance(m, CaptionerMember)}
    joint = {
        name: list(dict.fromkeys([*config.members, *(r for member in config.members for r in read[member])]))
        for name, config in experiment.token_ensembles.items()
    }
    return {**read, **joint}


def _budgets(members: TrainedMembers) -> dict[str, Budget]:
    """Of parameters, and of seconds a clip where these are limited. A token ensemble has no parameters of its own."""
    experiment, search = members.experiment, members.experiment.search
    metrics = {name: members.directory.member(name) / "metrics.json" for name in experiment.members}
    sizes = {name: json.loads(storage.read_text(path))["parameters"] for name, path in metrics.items()}
    budgets = {"parameters": Budget({**dict.fromkeys(experiment.token_ensembles, 0), **sizes}, search.size_budget)}
    if search.latency_budget:
        sampling = best_sampling(members.directory.search("sampling"))
        budgets["seconds_a_clip"] = Budget(members.seconds_a_clip(sampling), search.latency_budget)
    return budgets


def _added(task: str, metric: str, added: list[Added]) -> list[dict[str, Any]]:
    return [
        {"task": task, "metric": metric, "without": one.member, "dependents": one.dependents,
         "value_without": one.value_without, "adds": one.comparison.delta, "ci95": list(one.comparison.ci95)}
        for one in added
    ]  # fmt: skip


def _steps(steps: list[Step]) -> list[dict[str, Any]]:
    """With `taken`: whether the step belongs to the course up to its highest value."""
    top = max(range(len(steps)), key=lambda step: steps[step].value, default=-1)
    return [
        {"added": step.added, **step.costs, "cross_validated": step.value, "taken": number <= top}
        for number, step in enumerate(steps)
    ]
