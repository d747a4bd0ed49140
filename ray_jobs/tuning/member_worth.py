"""Measure what each member adds to the ensemble, and select members one by one, for metrics.json.

This uses what search and combine have at hand: models run only to be timed, where `search.latency_budget` is set.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

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
    search_captioning,
    solve_captioning,
)
from models.selection.rules import Rule
from ray_jobs.results.best import BestReranking, BestRetrieval, BestSampling
from ray_jobs.results.member import MemberMetrics
from ray_jobs.results.metrics import EnsembleMetrics, ForwardSelection, LeftOut, SelectionStep, Task
from ray_jobs.results.table import OF_CANDIDATES, read_table
from ray_jobs.tuning.candidate_store import add_values
from ray_jobs.tuning.forward import (
    all_members,
    captioning_options,
    known_candidates,
    last_taken,
    needs,
    retrieval_solver,
)
from ray_jobs.tuning.trained_members import TrainedMembers


@dataclass(frozen=True)
class MemberWorth:
    """The two parts of metrics.json about single members."""

    leave_one_out: list[LeftOut]
    forward_selection: ForwardSelection


@dataclass(frozen=True)
class _TaskWorth:
    """The same of captioning or retrieval; empty where the ensemble does not do it."""

    left_out: list[LeftOut] = field(default_factory=list)
    steps: list[SelectionStep] = field(default_factory=list)


def member_worth(members: TrainedMembers) -> MemberWorth:
    """Leave each member out on the split of `members`, by the tables that combine wrote, and select on validation."""
    experiment = members.experiment
    everybody = all_members(experiment)
    budgets = _budgets(members)
    captioning = _captioning(members, everybody, budgets) if everybody.captioners else _TaskWorth()
    retrieval = _retrieval(members, everybody, budgets) if everybody.retrievers else _TaskWorth()
    return MemberWorth(
        captioning.left_out + retrieval.left_out,
        ForwardSelection(
            budget=experiment.search.size_budget,
            latency_budget=experiment.search.latency_budget,
            captioning=captioning.steps,
            retrieval=retrieval.steps,
        ),
    )


def _captioning(members: TrainedMembers, everybody: Group, budgets: dict[str, Budget]) -> _TaskWorth:
    experiment, directory = members.experiment, members.directory
    objective, best = experiment.search.objective, BestReranking.read(directory.search("reranking"))
    cheap, known = captioning_options(experiment, directory), known_candidates(directory)
    options = replace(cheap, rule=_searching(best.rule))
    clip_ids = members.features.clip_ids
    columns = (*OF_CANDIDATES, "chosen")
    frame = read_table(directory.ensemble / "candidates.parquet", EnsembleMetrics.COMMAND, columns)
    frame = add_values(frame, clip_ids, members.features.captions, [objective])
    # the choice as a metric's column: 1 for the candidate that the ensemble chose
    own = CandidateTable.from_frame(frame.rename(columns={"chosen": VALUE + "chosen"}), clip_ids)

    def values_at(chosen: np.ndarray) -> np.ndarray:
        return np.take_along_axis(own.values[objective], chosen[:, None], 1)[:, 0]

    def values_of(group: Group) -> np.ndarray:
        reranking = solve_captioning(group, known.table, known.values[objective], options)
        return values_at(choose_captions(group, reranking, own.table))

    def worth_of(group: Group) -> float:
        return search_captioning(group, known.table, known.values[objective], cheap).solution.cross_validated

    only = everybody.captioners[0] if len(everybody.captioners) == 1 else None  # without it there would be no caption
    dependents = {
        member: [name for name, joint in experiment.token_ensembles.items() if member in joint.members]
        for member in everybody.members
        if member != only
    }
    full = values_at(own.values["chosen"].argmax(1))
    added = leave_one_out(everybody, dependents, full, values_of, experiment.seed)
    steps = forward_selection(everybody, worth_of, needs(experiment), budgets, everybody.captioners)
    return _TaskWorth(_left_out("captioning", objective, added), _steps(steps))


def _retrieval(members: TrainedMembers, everybody: Group, budgets: dict[str, Budget]) -> _TaskWorth:
    experiment, directory = members.experiment, members.directory
    similarities, (_, target) = members.similarities(), members.queries()
    best, solve = BestRetrieval.read(directory.search("retrieval")), retrieval_solver(experiment, directory)
    alone = Group(retrievers=everybody.retrievers)

    def values_of(group: Group) -> np.ndarray:
        return retrieval_values(solve(group.retrievers)[0].join(similarities), target).average_precision

    others = alone.retrievers if len(alone.retrievers) > 1 else ()
    full = retrieval_values(best.fusion.join(similarities), target).average_precision
    added = leave_one_out(alone, dict.fromkeys(others, ()), full, values_of, experiment.seed, groups=target)
    steps = forward_selection(alone, lambda group: solve(group.retrievers)[1], {}, budgets, alone.retrievers)
    return _TaskWorth(_left_out("retrieval", "map@10", added), _steps(steps))


def _searching(rule: Rule) -> Rule:
    """Return the rule by which smaller ensembles are solved: one that searches, where the whole one did not."""
    return "one-standard-error" if rule == "prior" else rule


def _budgets(members: TrainedMembers) -> dict[str, Budget]:
    """Return the budget of parameters, and that of seconds a clip where it is limited.

    A token ensemble has no parameters of its own.
    """
    experiment, search = members.experiment, members.experiment.search
    sizes = {name: MemberMetrics.read(members.directory.member(name)).parameters for name in experiment.members}
    budgets = {"parameters": Budget({**dict.fromkeys(experiment.token_ensembles, 0), **sizes}, search.size_budget)}
    if search.latency_budget:
        sampling = BestSampling.read(members.directory.search("sampling")).sampling
        budgets["seconds_a_clip"] = Budget(members.seconds_a_clip(sampling), search.latency_budget)
    return budgets


def _left_out(task: Task, metric: str, added: list[Added]) -> list[LeftOut]:
    return [
        LeftOut(
            task=task,
            metric=metric,
            without=member.member,
            dependents=member.dependents,
            value_without=member.value_without,
            adds=member.comparison.delta,
            ci95=member.comparison.ci95,
        )
        for member in added
    ]


def _steps(steps: list[Step]) -> list[SelectionStep]:
    """Mark the steps up to the highest value as taken."""
    top = last_taken(steps)
    return [
        SelectionStep.model_validate(
            {"added": step.added, **step.costs, "cross_validated": step.value, "taken": number <= top}
        )
        for number, step in enumerate(steps)
    ]
