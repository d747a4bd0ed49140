"""Lay out the report's section on results: all systems' values, and the ensemble against each single system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from ray_jobs.reporting.charts import chart, figure, label
from ray_jobs.reporting.forest import Difference, draw_forest
from ray_jobs.results.metrics import EnsembleMetrics, SystemComparison, Systems, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOWER_IS_BETTER = {"fluency_error", "fer", "median_rank"}
WORDS = ("unique_captions", "vocab.cands", "vocab.precision", "vocab.recall")  # the rest of `vocab` follows from these


@dataclass(frozen=True)
class Summary:
    """The ensemble against the best single system by one metric."""

    task: Task
    metric: str
    value: float
    best: str
    best_value: float
    comparison: SystemComparison | None

    @property
    def beyond_chance(self) -> bool:
        """Return whether the interval of the difference excludes zero."""
        return self.comparison is not None and excludes_zero(self.comparison)


@dataclass(frozen=True)
class Table:
    """The values of systems, by column."""

    columns: list[str]
    rows: Systems
    best: dict[str, set[str]]  # a column to the systems with its best value


def summaries(metrics: EnsembleMetrics) -> list[Summary]:
    """Return a summary of each task that the ensemble and single systems do."""
    found = [_summary(metrics, "captioning", "cider_d"), _summary(metrics, "retrieval", "map@10")]
    return [summary for summary in found if summary]


def best_single(systems: Systems, metric: str) -> str | None:
    """Return the system with the highest value that is no ensemble; None where all are."""
    singles = {name: values[metric] for name, values in systems.items() if not name.startswith("ensemble")}
    return max(singles, key=lambda name: singles[name], default=None)


def _summary(metrics: EnsembleMetrics, task: Task, metric: str) -> Summary | None:
    systems = metrics.captioning if task == "captioning" else metrics.retrieval
    best = best_single(systems, metric)
    if best is None or "ensemble" not in systems:
        return None
    found = [row for row in metrics.comparisons if row.metric == metric and row.b == best]
    return Summary(task, metric, systems["ensemble"][metric], best, systems[best][metric], found[0] if found else None)


def tables(metrics: EnsembleMetrics) -> dict[str, Table]:
    """Return the tables by name; one that was not computed is empty, as is that of a filter that changes nothing."""
    filtered, unfiltered = metrics.captioning["ensemble"], metrics.captioning_details.unfiltered
    of_filter = {"ensemble": filtered, "without the filter": unfiltered} if unfiltered != filtered else {}
    return {
        "captioning": table(metrics.captioning, lambda metric: not describes(metric)),
        "filter": table(of_filter, lambda metric: not describes(metric)),
        "words": table(metrics.captioning, lambda metric: metric in WORDS),
        "retrieval": table(metrics.retrieval),
        "retrieval_audio_to_text": table(metrics.retrieval_audio_to_text),
        "retrieval_transport": table(metrics.retrieval_transport or {}),
    }


def table(systems: Systems, wanted: Callable[[str], bool] = lambda metric: True) -> Table:
    """Return the table of the wanted metrics, in the order in which the systems have them."""
    columns = [metric for metric in dict.fromkeys(m for values in systems.values() for m in values) if wanted(metric)]
    best: dict[str, set[str]] = {}
    for metric in columns:
        values = {name: row[metric] for name, row in systems.items() if metric in row}
        top = (min if metric in LOWER_IS_BETTER else max)(values.values())
        best[metric] = set() if describes(metric) else {name for name, value in values.items() if value == top}
    return Table(columns, systems, best)


def describes(metric: str) -> bool:
    """Return whether a metric describes captions, so that none of its values is best."""
    return metric == "unique_captions" or metric.startswith("vocab.")


def chance(metrics: EnsembleMetrics) -> dict[str, float]:
    """Return the expected retrieval values of a random order of the clips."""
    return {f"r@{k}": min(1.0, k / metrics.clips) for k in (1, 5, 10)} | {"map@10": metrics.retrieval_chance}


OF_ENSEMBLE = "of the ensemble minus that of the other"


def forests(
    comparisons: Sequence[SystemComparison], axis: str = OF_ENSEMBLE, named: Literal["a", "b"] = "b"
) -> dict[str, Markup]:
    """Return a chart of the differences and their intervals for each metric.

    Args:
        axis: what the difference is, after the metric's name.
        named: the system of each comparison by which its row is called.
    """
    return {
        metric: _forest(metric, [row for row in comparisons if row.metric == metric], axis, named)
        for metric in dict.fromkeys(row.metric for row in comparisons)
    }


def excludes_zero(comparison: SystemComparison) -> bool:
    """Return whether the 95 % interval of a difference excludes zero."""
    low, high = comparison.ci95
    return low > 0 or high < 0


@chart
def _forest(metric: str, rows: list[SystemComparison], axis: str, named: str) -> Figure:
    fig, axes = figure(4.6, 0.7 + 0.42 * len(rows))
    differences = [Difference(getattr(row, named), row.delta, row.ci95, excludes_zero(row)) for row in rows]
    draw_forest(axes, differences, f"{label(metric)} {axis}")
    return fig
