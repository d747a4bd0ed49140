"""Rank all systems of a run, single ones and ensembles, by value, interval and cost, from its files alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from models.errors import InputError
from models.metrics.bootstrap import paired_bootstrap
from ray_jobs.experiment.config import FULL, Experiment
from ray_jobs.reporting.costs import MemberCosts
from ray_jobs.reporting.systems import LOWER_IS_BETTER
from ray_jobs.reporting.task_results import (
    TaskResults,
    captioning_results,
    combined,
    outdated,
    retrieval_results,
    values_per_item,
)
from ray_jobs.results.metrics import CAPTION_VALUES, RETRIEVAL_VALUES, EnsembleMetrics, Task, Values
from ray_jobs.results.some_members import SomeMembersMetrics
from ray_jobs.run.directory import RunDirectory
from ray_jobs.training.refit import Refit, finished_refit

PER_ITEM: dict[Task, str] = {"captioning": CAPTION_VALUES, "retrieval": RETRIEVAL_VALUES}
SOME = "some members"  # of ensembles that `combine --members` made


@dataclass(frozen=True)
class Entry:
    """A system with what it reaches and what it takes; None where the run does not have it."""

    task: Task
    system: str
    kind: str
    metric: str
    validation: float | None  # what weights were searched on: the value by which these were chosen
    test: float
    ci95: tuple[float, float] | None  # of the test value, over resampled clips
    members: list[str]  # that run when it is used
    parameters: int | None  # of these members, without the codec
    training_s: float | None  # of these members, and of those that they were trained from
    seconds: float | None = None  # a clip, of these members: `SystemSeconds`
    pareto: bool = False  # no other system of the task is at least as good at no higher cost
    inherited_from: str | None = None  # of a refit, the system whose values these are
    extra: Values = field(default_factory=dict)  # further test values


@dataclass(frozen=True)
class Leaderboard:
    """The systems of both tasks, best first."""

    entries: list[Entry]
    extra_metrics: list[str]
    note: str = ""  # what the reader should know of them

    def of(self, task: Task) -> list[Entry]:
        """Return the entries of a task."""
        return [entry for entry in self.entries if entry.task == task]

    def to_frame(self) -> pd.DataFrame:
        """Return a frame with one row per entry, and missing values where the run lacks one."""
        return pd.DataFrame([_row(entry, self.extra_metrics) for entry in self.entries])


def read_leaderboard(experiment: Experiment, directory: RunDirectory, extra_metrics: Sequence[str] = ()) -> Leaderboard:
    """Read the leaderboard of a run; no model is loaded.

    Args:
        extra_metrics: names of further metrics whose test values are wanted, such as `spider` or `r@1`.

    Raises:
        NotReadyError: if `combine` has not run.
        InputError: if no system has a value by one of `extra_metrics`.
        RecordError: if a file is damaged, or of another version.
    """
    metrics = combined(directory)
    _check_metrics(metrics, extra_metrics)
    costs, refit = MemberCosts(experiment, directory), finished_refit(experiment)
    entries = []
    for task in (captioning_results(experiment, directory, metrics), retrieval_results(experiment, directory, metrics)):
        single = [_entry(task, system, costs, extra_metrics) for system in task.systems]
        some = [_of_some(path, task, costs, extra_metrics) for path in directory.ensembles_of_some()]
        for entry in _mark_pareto([*single, *filter(None, some)]):
            entries.append(entry)
            if refit and entry.kind != SOME and refit.names.keys() & set(entry.members):
                entries.append(_refitted(entry, refit))
    return Leaderboard(entries, list(extra_metrics), outdated(directory))


def _check_metrics(metrics: EnsembleMetrics, wanted: Iterable[str]) -> None:
    systems = [*metrics.captioning.values(), *metrics.retrieval.values()]
    known = list(dict.fromkeys(metric for values in systems for metric in values))
    for metric in wanted:
        if reason := metrics.captioning_details.absent.get(metric):
            raise InputError(f"extra metric {metric!r} was not computed in this run: {reason}")
        if metric not in known:
            raise InputError(f"extra metric {metric!r}: expected one that the run has: {', '.join(known)}")


def _entry(results: TaskResults, system: str, costs: MemberCosts, extra_metrics: Sequence[str]) -> Entry:
    values = results.systems[system]
    members = costs.running(results.members(system))
    return Entry(
        task=results.task,
        system=system,
        kind=results.kind(system),
        metric=results.metric,
        validation=results.validation.get(system),
        test=float(values[results.metric]),
        ci95=_interval(results.of_items(system), results.metric, values),
        members=members,
        parameters=costs.parameters(members),
        training_s=costs.training_s(members),
        seconds=results.seconds(system, members),
        extra={metric: values[metric] for metric in extra_metrics if metric in values},
    )


def _of_some(path: Path, results: TaskResults, costs: MemberCosts, extra_metrics: Sequence[str]) -> Entry | None:
    """Return the entry of an ensemble of some members; None if they do not do the task."""
    found = SomeMembersMetrics.read(path)
    part = found.captioning if results.task == "captioning" else found.retrieval
    if part is None or results.metric not in part.values:
        return None
    weighed = [name for name, weight in found.retrieval.fusion.weights.items() if weight] if found.retrieval else []
    members = costs.running(found.members if results.task == "captioning" else weighed)
    return Entry(
        task=results.task,
        system=path.name,
        kind=SOME,
        metric=results.metric,
        validation=None,
        test=float(part.values[results.metric]),
        ci95=_interval(values_per_item(path / PER_ITEM[results.task], ["clip_id"]), results.metric, part.values),
        members=members,
        parameters=costs.parameters(members),
        training_s=costs.training_s(members),
        extra={metric: part.values[metric] for metric in extra_metrics if metric in part.values},
    )


def _refitted(entry: Entry, refit: Refit) -> Entry:
    """Return the entry of the same system of a refit, whose values are inherited."""
    costs, members = MemberCosts(refit, RunDirectory(refit)), [refit.renamed(name) for name in entry.members]
    name, slash, how = entry.system.partition("/")
    return replace(
        entry,
        system=refit.names.get(name, name + FULL) + slash + how,
        kind=f"{entry.kind}, refit",
        members=members,
        parameters=costs.parameters(members),
        training_s=costs.training_s(members),
        pareto=False,
        inherited_from=entry.system,
    )


def _interval(own: pd.DataFrame | None, metric: str, value: Values) -> tuple[float, float] | None:
    """Return the 95 % interval of a test value over resampled clips, whose queries are drawn together.

    None where its mean over items is not the value, as with BLEU, which is computed of a whole corpus.

    Args:
        own: the values of the system's items.
    """
    if own is None or metric not in own:
        return None
    values = own[metric].to_numpy(float)
    if own["clip_id"].nunique() < 2 or not np.isclose(values.mean(), value[metric]):
        return None
    # compared with nothing, the mean difference is the mean
    return paired_bootstrap(values, np.zeros_like(values), groups=own["clip_id"].to_numpy()).ci95


def _mark_pareto(entries: list[Entry]) -> list[Entry]:
    """Return the entries of a task best first, with those marked that no other beats at no higher cost.

    Costs are parameters and, between systems of which both are measured, seconds a clip.
    """
    sign = -1 if entries and entries[0].metric in LOWER_IS_BETTER else 1

    def beats(one: Entry, other: Entry) -> bool:
        measured = one.seconds is not None and other.seconds is not None
        pairs = [(-sign * one.test, -sign * other.test), (one.parameters, other.parameters)]
        pairs += [(one.seconds, other.seconds)] if measured else []
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)  # type: ignore[operator]

    known = [entry for entry in entries if entry.parameters is not None]
    marked = [
        replace(entry, pareto=entry.parameters is not None and not any(beats(other, entry) for other in known))
        for entry in entries
    ]
    return sorted(marked, key=lambda entry: -sign * entry.test)


def _row(entry: Entry, extra_metrics: Sequence[str]) -> dict[str, object]:
    low, high = entry.ci95 or (None, None)
    return {
        "task": entry.task,
        "system": entry.system,
        "kind": entry.kind,
        "metric": entry.metric,
        "validation": entry.validation,
        "test": entry.test,
        "test_low": low,
        "test_high": high,
        "parameters": entry.parameters,
        "training_seconds": entry.training_s,
        "seconds_a_clip": entry.seconds,
        "members": " ".join(entry.members),
        "pareto": entry.pareto,
        "inherited_from": entry.inherited_from,
        **{f"test_{metric}": entry.extra.get(metric) for metric in extra_metrics},
    }
