"""Show the comparison of an ablation's arms: tables in a terminal, and results/index.html."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
from rich.table import Column, Table

from corpora.soundscapes.corpus import KIND
from models.console import count
from ray_jobs.ablation.arms import Ablation
from ray_jobs.experiment.config import Experiment
from ray_jobs.reporting.charts import label
from ray_jobs.reporting.page import template
from ray_jobs.reporting.systems import forests
from ray_jobs.results.metrics import SystemComparison

NONE = "-"


def terminal_tables(table: pd.DataFrame) -> list[Table]:
    """Return a table for each metric."""
    return [_terminal_table(rows) for rows in _by_metric(table).values()]


def _by_metric(table: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each metric, with None where a value is missing."""
    records: list[Any] = table.astype(object).where(table.notna(), None).to_dict("records")
    return {metric: [row for row in records if row["metric"] == metric] for metric in table["metric"].unique()}


def _terminal_table(rows: list[dict[str, Any]]) -> Table:
    one = rows[0]
    metric, clips, seeds = label(one["metric"]), count(one["clips"], "clip"), count(one["seeds"], "seed")
    titles = [metric, "95 % interval", f"minus {one['arm']}", "95 % interval"]
    if one["seeds"] > 1:
        titles.insert(2, "std of seeds")
    shown = Table(
        Column("arm", overflow="fold"),
        *(Column(title, justify="right", no_wrap=True) for title in titles),
        box=None,
        title=f"{metric} of the ensemble, {one['corpus']} {one['split']}, {clips}, {seeds}, commit {one['commit']}",
        title_justify="left",
    )
    for row in rows:
        spread = [f"{row['seed_std']:.3f}"] if one["seeds"] > 1 else []
        difference = (f"{row['delta']:+.3f}", f"{row['delta_low']:+.3f} to {row['delta_high']:+.3f}")
        shown.add_row(
            row["arm"],
            f"{row['value']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            *spread,
            *((NONE, NONE) if row is one else difference),
        )
    return shown


def render(ablation: Ablation, table: pd.DataFrame) -> str:
    """Return the page as HTML that loads nothing from elsewhere."""
    first, rows = ablation.arms[0], _by_metric(table)
    compared = [
        SystemComparison(
            metric=metric, a=row["arm"], b=first, delta=row["delta"], ci95=(row["delta_low"], row["delta_high"])
        )
        for metric, of_metric in rows.items()
        for row in of_metric[1:]
    ]
    return template("ablation.html").render(
        name=ablation.name,
        first=first,
        seeds=ablation.seeds,
        one=table.iloc[0].to_dict(),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        synthetic=_target_kind(ablation.runs[0].experiment) == KIND,
        tables=rows,
        charts=forests(compared, f"minus that of {first}", "a"),
        runs={arm: [run.experiment.name for run in ablation.of(arm)] for arm in ablation.arms},
    )


def _target_kind(experiment: Experiment) -> str:
    return experiment.corpora[experiment.target_corpus].kind
