"""Lay out the report's section on training: each member's result and its curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ray_jobs.experiment.config import Experiment
from ray_jobs.reporting.charts import THEME, chart, figure, label
from ray_jobs.results.member import DOUBTFUL_PAIRS, MemberMetrics
from ray_jobs.results.table import read_table
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory
from ray_jobs.training.refit import finished_refit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_EPOCHS = 15  # below, each epoch of a curve is marked


def shown_members(experiment: Experiment, directory: RunDirectory) -> list[dict[str, Any]]:
    """Return each member's metrics.json with the chart of its training, if any, in the order of the experiment."""
    refit = finished_refit(experiment)
    return [_member(directory.member(name)) for name in [*experiment.members, *(refit.names.values() if refit else ())]]


def _member(path: Path) -> dict[str, Any]:
    metrics, curve = MemberMetrics.read(path), None
    if metrics.epochs and not metrics.inherited_from:
        history = read_table(
            path / "history.parquet", MemberMetrics.COMMAND, ("epoch", "train_loss", metrics.chosen_by)
        )
        curve = _training_curve(history, metrics.chosen_by, metrics.best["epoch"])
    absent = {"inherited_from": None, "planned_epochs": None}  # records leave out None
    return {**absent, **metrics.model_dump(), "curve": curve, "doubtful": storage.exists(path / DOUBTFUL_PAIRS)}


@chart
def _training_curve(history: pd.DataFrame, monitor: str, chosen: float) -> Figure:
    from matplotlib.ticker import MaxNLocator

    fig, panels = figure(3.4, 2.9, panels=2)
    watched = (monitor, f"validation {label(monitor)}", "second")
    for axes, (column, title, colour) in zip(panels, (("train_loss", "training loss", "accent"), watched), strict=True):
        marker = "o" if len(history) < FEW_EPOCHS else None
        axes.plot(history["epoch"], history[column], color=THEME[colour], marker=marker, markersize=3)
        axes.axvline(chosen, color=THEME["muted"], linewidth=1, linestyle=(0, (3, 2)))
        axes.set_title(title, loc="left")
    value = history.loc[history["epoch"] == chosen, monitor]
    panels[1].plot([chosen] * len(value), value, "o", color=THEME["second"], markersize=7)
    panels[1].set_xlabel("epoch (dashed: the chosen one)")
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig
