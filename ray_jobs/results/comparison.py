"""What `enclap compare` finds: the values of runs on the clips that they share, and the difference of every pair."""

from __future__ import annotations

import pandas as pd

from ray_jobs.results.metrics import SystemComparison, Task
from ray_jobs.results.record import ResultPart


class ComparedRun(ResultPart):
    """A run, and what its values are of."""

    name: str
    place: str  # its directory or URI
    clips: int  # of its test split
    seed: int
    commit: str  # of the code that scored it
    note: str  # what the reader should know of its values


class PairComparison(SystemComparison):
    """Run a against run b."""

    p_value: float
    p_holm: float  # adjusted for all pairs of the metric
    better: str | None  # the run that is, at a level of 5 % of `p_holm`


class MetricComparison(ResultPart):
    """All runs by one metric."""

    metric: str
    task: Task
    settings: str  # how the values were computed: library, version, tokens, direction
    items: int  # clips of captioning, queries of retrieval
    values: dict[str, float]  # mean over the items, by run
    pairs: list[PairComparison]


class RunsComparison(ResultPart):
    """Everything that the comparison found, and what it is of."""

    corpus: str
    corpus_kind: str
    split: str
    clips: int  # that all runs share
    system: str
    resamples: int
    bootstrap_seed: int
    runs: list[ComparedRun]
    metrics: list[MetricComparison]
    notes: list[str]

    def to_frame(self) -> pd.DataFrame:
        """Return a frame with one row per metric and pair, which says by itself what each value is of."""
        runs = {run.name: run for run in self.runs}
        return pd.DataFrame([self._row(metric, pair, runs) for metric in self.metrics for pair in metric.pairs])

    def _row(self, metric: MetricComparison, pair: PairComparison, runs: dict[str, ComparedRun]) -> dict[str, object]:
        low, high = pair.ci95
        return {
            "task": metric.task,
            "metric": metric.metric,
            "settings": metric.settings,
            "corpus": self.corpus,
            "corpus_kind": self.corpus_kind,
            "split": self.split,
            "clips": self.clips,
            "items": metric.items,
            "system": self.system,
            "a": pair.a,
            "b": pair.b,
            "value_a": metric.values[pair.a],
            "value_b": metric.values[pair.b],
            "delta": pair.delta,
            "delta_low": low,
            "delta_high": high,
            "p_value": pair.p_value,
            "p_holm": pair.p_holm,
            "pairs": len(metric.pairs),
            "better": pair.better,
            **{f"{field}_{side}": getattr(runs[name], field) for field in ("place", "seed", "commit")
               for side, name in (("a", pair.a), ("b", pair.b))},
            "resamples": self.resamples,
            "bootstrap_seed": self.bootstrap_seed,
        }  # fmt: skip
