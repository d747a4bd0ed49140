"""Compare runs with each other on the test clips that they share: paired bootstrap, Holm's correction, forest plot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from models.errors import InputError
from models.metrics.bootstrap import holm, paired_bootstrap
from models.metrics.captions import NEEDS_TWO_CLIPS
from ray_jobs.reporting.charts import chart, figure, label
from ray_jobs.reporting.comparable_runs import ComparableRun, ComparisonError, check_settings, shared_clips
from ray_jobs.reporting.forest import Difference, draw_forest
from ray_jobs.reporting.systems import LOWER_IS_BETTER
from ray_jobs.reporting.task_results import RETRIEVAL_METRIC
from ray_jobs.results.comparison import ComparedRun, MetricComparison, PairComparison, RunsComparison
from ray_jobs.results.metrics import COMPARED, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESAMPLES, SEED = 10_000, 0
LEVEL = 0.05  # of the adjusted p-values
TASKS: tuple[Task, ...] = ("captioning", "retrieval")


def compare_runs(found: Sequence[ComparableRun], system: str, wanted: Sequence[str] = ()) -> RunsComparison:
    """Compare a system of two or more runs, each run with each other.

    Args:
        system: `ensemble`, or another one that all runs have.
        wanted: metrics; those that metrics.json compares by, as far as all runs have them, when left out.

    Raises:
        ComparisonError: if the runs were tested on other clips or by other settings, or there are no values to compare.
        InputError: if a run lacks the system or a metric, or is given twice.
        TooFewClipsError: if they share fewer than two clips.
    """
    runs = _named(found)
    for run in runs:
        _check_system(run, system)
    metrics, notes = _metrics(runs, system, wanted)
    for task in dict.fromkeys(metrics.values()):
        check_settings(runs, task)
    clips = shared_clips(runs)
    partly = len(clips) < max(len(run.clip_ids) for run in runs)
    notes += [f"{run.name}: {run.note}" for run in runs if run.note]
    notes += [note for metric, task in metrics.items() if partly and (note := _of_all_clips(metric, task))]
    tested = runs[0].metrics
    return RunsComparison(
        corpus=tested.corpus,
        corpus_kind=tested.corpus_kind,
        split=tested.split,
        clips=len(clips),
        system=system,
        resamples=RESAMPLES,
        bootstrap_seed=SEED,
        runs=[
            ComparedRun(
                name=run.name,
                place=run.place,
                clips=len(run.clip_ids),
                seed=run.metrics.seed,
                commit=run.metrics.commit,
                note=run.note,
            )
            for run in runs
        ],
        metrics=[_compare(runs, metric, task, system, clips) for metric, task in metrics.items()],
        notes=list(dict.fromkeys(notes)),
    )


def _named(found: Sequence[ComparableRun]) -> list[ComparableRun]:
    """Return the runs, those whose names are equal by their places."""
    for place, times in Counter(run.place for run in found).items():
        if times > 1:
            raise InputError(f"{place}: given {times} times, expected runs that differ")
    if len(found) < 2:
        raise InputError(f"found {len(found)} run, expected at least two to compare")
    names = Counter(run.name for run in found)
    return [run if names[run.name] == 1 else replace(run, name=run.place) for run in found]


def _check_system(run: ComparableRun, system: str) -> None:
    known = list(dict.fromkeys([*run.metrics.captioning, *run.metrics.retrieval]))
    if system not in known:
        raise InputError(f"--system {system!r}: {run.place} has {', '.join(known)}")


def _metrics(runs: Sequence[ComparableRun], system: str, wanted: Sequence[str]) -> tuple[dict[str, Task], list[str]]:
    """Return the metrics to compare by with their tasks, and what the user should know of others."""
    known = [{m: task for task in TASKS for m in run.values_of(task, system)} for run in runs]
    common = {metric: task for metric, task in known[0].items() if all(metric in one for one in known)}
    for metric in wanted:
        for run, one in zip(runs, known, strict=True):
            if metric not in one:
                reason = run.metrics.captioning_details.absent.get(metric)
                has = f"it was not computed: {reason}" if reason else f"expected one of {', '.join(common)}"
                raise InputError(f"--metric {metric!r}: {run.place} has no such value of {system}; {has}")
    usual = (*COMPARED, RETRIEVAL_METRIC)
    chosen = {metric: common[metric] for metric in wanted or usual if metric in common}
    if not chosen:
        raise ComparisonError(f"the runs have none of {', '.join(usual)} of {system} in common; name one by --metric")
    some = {m: [run.name for run, one in zip(runs, known, strict=True) if m in one] for m in usual if m not in chosen}
    notes = [f"{label(m)}: only {', '.join(have)} has it" for m, have in some.items() if have and not wanted]
    return chosen, notes


def _of_all_clips(metric: str, task: Task) -> str:
    """Return how a clip's value depends on all clips of its run; empty where it does not."""
    if task == "retrieval":
        return "clips were ranked among all clips of their own run, and these differ: values compare with care"
    if metric in NEEDS_TWO_CLIPS:
        return (
            f"{label(metric)} weighs words by the references of all clips of a run, and these differ: values compare "
            "with care"
        )
    return ""


def _compare(runs: Sequence[ComparableRun], metric: str, task: Task, system: str, clips: set[str]) -> MetricComparison:
    values = {run.name: run.of_items(metric, task, system) for run in runs}
    values = {name: own[own.index.get_level_values(0).isin(clips)] for name, own in values.items()}
    first = values[runs[0].name]
    for run in runs[1:]:
        if not values[run.name].index.equals(first.index):
            raise ComparisonError(
                f"{runs[0].place} has {len(first)} values by {metric!r} of the clips that all share, {run.place} "
                f"{len(values[run.name])}, of other items"
            )
    groups = first.index.get_level_values(0).to_numpy()
    pairs = list(combinations(values, 2))
    tested = [
        paired_bootstrap(values[a].to_numpy(), values[b].to_numpy(), RESAMPLES, SEED, groups=groups) for a, b in pairs
    ]
    adjusted = holm([one.p_value for one in tested])
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return MetricComparison(
        metric=metric,
        task=task,
        settings=runs[0].settings(task),
        items=len(first),
        values={name: float(own.mean()) for name, own in values.items()},
        pairs=[
            PairComparison(
                metric=metric,
                a=a,
                b=b,
                delta=one.delta,
                ci95=one.ci95,
                p_value=one.p_value,
                p_holm=float(p),
                better=(a if sign * one.delta > 0 else b) if p < LEVEL else None,
            )
            for (a, b), one, p in zip(pairs, tested, adjusted, strict=True)
        ],
    )


@chart
def forest(found: RunsComparison) -> Figure:
    """Draw the differences of all pairs with their intervals, a panel for each metric."""
    rows = len(found.metrics[0].pairs)
    fig, panels = figure(5.6, len(found.metrics) * (0.9 + 0.42 * rows), len(found.metrics), sharex=False)
    for axes, metric in zip(np.atleast_1d(panels), found.metrics, strict=True):
        differences = [
            Difference(f"{pair.a} − {pair.b}", pair.delta, pair.ci95, pair.better is not None) for pair in metric.pairs
        ]
        draw_forest(axes, differences, f"difference in {label(metric.metric)}, {found.clips:,} clips")
    what = f"{found.system} on the {found.split} split of {found.corpus}"
    fig.suptitle(f"{what}; in colour: p (Holm) below {LEVEL:.0%}", fontsize="small", x=0.01, ha="left")
    return fig
