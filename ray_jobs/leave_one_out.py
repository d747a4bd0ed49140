"""What each member adds to the ensemble, and a forward selection of members, for metrics.json.

From what search and combine hold already: no model runs.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.candidates import VALUE, CandidateTable
from models.leave_one_out import (
    Added,
    Group,
    Step,
    choose_captions,
    forward_selection,
    leave_one_out,
    solve_captioning,
    solve_retrieval,
)
from models.retrieval_metrics import retrieval_values
from ray_jobs import storage
from ray_jobs.candidate_store import add_values
from ray_jobs.config import CaptionerMember, Experiment
from ray_jobs.members import TrainedMembers
from ray_jobs.run_directory import RunDirectory
from ray_jobs.search_retrieval import retrieval_options, split_target
from ray_jobs.search_sampling import reranking_options


def member_worth(members: TrainedMembers) -> dict[str, Any]:
    """`leave_one_out` (on the split of `members`, with what combine wrote) and `forward_selection` (on validation)."""
    experiment = members.experiment
    detectors = experiment.of_kind("fluency-detector")
    everybody = Group(
        tuple(experiment.of_kind("captioner")),
        tuple(experiment.of_kind("retriever")),
        detectors[0] if detectors else None,
    )
    captioning, captioning_steps = _captioning(members, everybody) if everybody.captioners else ([], [])
    retrieval, retrieval_steps = _retrieval(members, everybody) if everybody.retrievers else ([], [])
    return {
        "leave_one_out": captioning + retrieval,
        "forward_selection": {
            "budget": experiment.search.size_budget, "captioning": captioning_steps, "retrieval": retrieval_steps,
        },
    }  # fmt: skip


def _captioning(members: TrainedMembers, everybody: Group) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
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
    added = leave_one_out(everybody, others, values_at(own["chosen"].argmax(1)), values_of, experiment.seed)
    needs = {n: m.retrievers() for n, m in experiment.members.items() if isinstance(m, CaptionerMember)}
    steps = forward_selection(
        everybody, lambda group: solve(group)[1], _sizes(experiment, directory), needs, experiment.search.size_budget,
        everybody.captioners,
    )  # fmt: skip
    return _added("captioning", objective, added), _steps(steps)


def _retrieval(members: TrainedMembers, everybody: Group) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
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
    steps = forward_selection(
        alone, lambda group: solve(group.retrievers)[1], _sizes(experiment, directory), {},
        experiment.search.size_budget, alone.retrievers,
    )  # fmt: skip
    return _added("retrieval", "map@10", added), _steps(steps)


def _table(path: Path) -> tuple[CandidateTable, dict[str, np.ndarray]]:
    frame = pd.read_parquet(path)
    return CandidateTable.from_frame(frame, list(dict.fromkeys(frame["clip_id"])))


def _sizes(experiment: Experiment, directory: RunDirectory) -> dict[str, int]:
    """Parameters of each member."""
    metrics = {name: directory.member(name) / "metrics.json" for name in experiment.members}
    return {name: int(json.loads(storage.read_text(path))["parameters"]) for name, path in metrics.items()}


def _added(task: str, metric: str, added: list[Added]) -> list[dict[str, Any]]:
    return [
        {"task": task, "metric": metric, "without": one.member, "value_without": one.value_without,
         "adds": one.comparison.delta, "ci95": list(one.comparison.ci95)}
        for one in added
    ]  # fmt: skip


def _steps(steps: list[Step]) -> list[dict[str, Any]]:
    """With `taken`: whether the step belongs to the course up to its highest value."""
    top = max(range(len(steps)), key=lambda step: steps[step].value, default=-1)
    return [
        {"added": step.added, "parameters": step.size, "cross_validated": step.value, "taken": number <= top}
        for number, step in enumerate(steps)
    ]
