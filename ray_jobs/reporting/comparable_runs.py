"""Read what runs have written of their test clips, and refuse runs whose values do not compare."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from models.console import count
from models.errors import InputError, TooFewClipsError
from ray_jobs.experiment.config import Experiment
from ray_jobs.reporting.task_results import combined, outdated, values_per_item
from ray_jobs.results.metrics import CAPTION_VALUES, RETRIEVAL_VALUES, EnsembleMetrics, Task, Values
from ray_jobs.run import storage
from ray_jobs.run.directory import NOT_OF_FEATURES, RunDirectory

AT_RANK = re.compile(r"(r|map)@(\d+)")


class ComparisonError(InputError):
    """Runs do not compare; the message says which, what was found and what was expected."""


@dataclass(frozen=True)
class ComparableRun:
    """A run that `combine` has scored, with the values of its single clips and queries."""

    name: str
    place: str
    experiment: Experiment
    metrics: EnsembleMetrics
    ensemble: Path
    note: str

    @classmethod
    def read(cls, experiment: Experiment) -> ComparableRun:
        """Read a run by its experiment.

        Raises:
            NotReadyError: if `combine` has not run.
            RecordError: if a file is damaged, or of another version.
        """
        directory = RunDirectory(experiment)
        metrics, place = combined(directory), storage.uri(directory.root)
        return cls(experiment.name, place, experiment, metrics, directory.ensemble, outdated(directory))

    @cached_property
    def captions(self) -> pd.DataFrame | None:
        """Return one row per system and clip; None where an earlier version wrote none."""
        return values_per_item(self.ensemble / CAPTION_VALUES)

    @cached_property
    def queries(self) -> pd.DataFrame | None:
        """Return one row per system and query; None where an earlier version wrote none."""
        return values_per_item(self.ensemble / RETRIEVAL_VALUES)

    @cached_property
    def references(self) -> pd.Series | None:
        """Return the sorted captions of each clip, by clip_id; None where the run has no values of single queries."""
        if self.queries is None:
            return None
        one = self.queries[self.queries["system"] == self.queries["system"].iloc[0]]
        return one.groupby("clip_id")["caption"].agg(lambda captions: tuple(sorted(captions)))

    @cached_property
    def clip_ids(self) -> set[str]:
        """Return the clips of which it has values."""
        found = [frame["clip_id"] for frame in (self.captions, self.queries) if frame is not None]
        if not found:
            raise ComparisonError(
                f"{storage.uri(self.ensemble)}: found neither {CAPTION_VALUES} nor {RETRIEVAL_VALUES}, the values of "
                "single clips, which earlier versions did not write; `enclap combine` in a new run writes them"
            )
        return set(pd.concat(found))

    @property
    def data(self) -> str:
        """Return what the run was tested on, for messages."""
        m = self.metrics
        return f"split {m.split!r} of {m.corpus!r} ({m.corpus_kind}, {count(m.clips, 'clip')})"

    def settings(self, task: Task) -> str:
        """Return how the values of a task were computed."""
        if task == "retrieval":
            return self.metrics.retrieval_details.get("retrieval", "unknown")
        details = self.metrics.captioning_details
        return f"{details.library}, {details.preprocessing} tokens"

    def values_of(self, task: Task, system: str) -> Values:
        """Return the test values of a system; none where the run lacks it."""
        return (self.metrics.captioning if task == "captioning" else self.metrics.retrieval).get(system, {})

    def of_items(self, metric: str, task: Task, system: str) -> pd.Series:
        """Return the values of a system's clips by (clip_id,), or of its queries by (clip_id, caption, occurrence).

        Raises:
            ComparisonError: if there are none, one is not finite, or their mean is not the value of the whole split.
        """
        frame = self.captions if task == "captioning" else self.queries
        own = None if frame is None else frame[frame["system"] == system]
        values = None if own is None or own.empty else _values(own, metric)
        if own is None or values is None:
            raise ComparisonError(f"{self.place}: has no values of single clips of {system} by {metric!r}")
        keys = [own["clip_id"]]
        if task == "retrieval":
            keys += [own["caption"], own.groupby(["clip_id", "caption"]).cumcount()]
        bad = own["clip_id"][~np.isfinite(values)]
        if len(bad):
            raise ComparisonError(f"{self.place}: {metric!r} of clip {bad.iloc[0]!r} of {system} is not finite")
        whole = self.values_of(task, system)[metric]
        if not np.isclose(values.mean(), whole):
            raise ComparisonError(
                f"metric {metric!r}: {self.place} has {whole:.4f} of {system}, and a mean over its clips of "
                f"{values.mean():.4f}; a paired bootstrap over clips needs a metric that is a mean over clips"
            )
        return pd.Series(values, pd.MultiIndex.from_arrays(keys)).sort_index()


def _values(own: pd.DataFrame, metric: str) -> np.ndarray | None:
    """Return a metric's values of single items; R@k and mAP@k of queries with one right clip follow from its rank."""
    if metric in own:
        return own[metric].to_numpy(float)
    if "rank" not in own or not (found := AT_RANK.fullmatch(metric)):
        return None
    ranks, cutoff = own["rank"].to_numpy(float), int(found[2])
    return np.where(ranks <= cutoff, 1.0 if found[1] == "r" else 1 / ranks, 0.0)


def shared_clips(runs: Sequence[ComparableRun]) -> set[str]:
    """Return the test clips that all runs share.

    Raises:
        ComparisonError: if two runs were tested on other splits, or on other clips, be their names equal or not.
        TooFewClipsError: if only one clip is shared.
    """
    first = runs[0]
    for run in runs[1:]:
        if first.metrics.split != run.metrics.split:
            raise ComparisonError(f"other test splits: {_both(first, run)}")
        common = first.clip_ids & run.clip_ids
        if not common:
            raise ComparisonError(f"other test clips: {_both(first, run)}; they share none")
        _check_same_clips(first, run, common)
    shared = set.intersection(*(run.clip_ids for run in runs))
    if len(shared) < 2:
        tested = "; ".join(f"{run.place} was tested on {run.data}" for run in runs)
        raise TooFewClipsError(f"all runs share {count(len(shared), 'clip')}, a bootstrap needs two: {tested}")
    return shared


def _check_same_clips(a: ComparableRun, b: ComparableRun, common: set[str]) -> None:
    """Check that clips of one name are the same clips: by their captions, or where these are not kept by the corpus."""
    if a.references is not None and b.references is not None:
        pair = pd.concat([a.references, b.references], axis=1, join="inner", keys=["a", "b"])
        other = pair[pair["a"] != pair["b"]]
        if len(other):
            clip, captions = other.index[0], other.iloc[0]
            raise ComparisonError(
                f"other test clips: {_both(a, b)}; of the {len(common)} clip names in both, {len(other)} have other "
                f"captions: {clip!r} has {_odd(captions['a'], captions['b'])!r} in {a.place}, "
                f"{_odd(captions['b'], captions['a'])!r} in {b.place}"
            )
        return
    corpora = [run.experiment.corpora[run.metrics.corpus] for run in (a, b)]
    one, two = (corpus.model_dump(mode="json", exclude=NOT_OF_FEATURES) for corpus in corpora)
    fields = [field for field in {**one, **two} if one.get(field) != two.get(field)]
    if fields:
        found = ", ".join(f"{field} {one.get(field)!r} and {two.get(field)!r}" for field in fields)
        raise ComparisonError(
            f"other corpora: {_both(a, b)}, with {found}; without {RETRIEVAL_VALUES} in both, which earlier versions "
            "did not write, nothing shows that their clips are the same"
        )


def _odd(captions: tuple[str, ...], others: tuple[str, ...]) -> str:
    """Return the first caption that the others lack; or how many there are, where only that differs."""
    return next((caption for caption in captions if caption not in others), count(len(captions), "caption"))


def _both(a: ComparableRun, b: ComparableRun) -> str:
    return f"{a.place} was tested on {a.data}, {b.place} on {b.data}"


def check_settings(runs: Sequence[ComparableRun], task: Task) -> None:
    """Check that the values of a task were computed alike.

    Raises:
        ComparisonError: naming two runs whose values were not.
    """
    first = runs[0]
    for run in runs[1:]:
        if first.settings(task) != run.settings(task):
            raise ComparisonError(
                f"other settings of {task} metrics: {first.place} has those of {first.settings(task)}, {run.place} of "
                f"{run.settings(task)}; such values do not compare. `enclap combine` of both in one environment makes "
                "them alike"
            )
