"""Show the comparison of an ablation's arms: tables in a terminal, and results/index.html."""

from __future__ import annotations

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


def terminal_tables(ablation: Ablation, table: pd.DataFrame) -> list[Table]:
    """Return a table for each metric."""
    return [_terminal_table(ablation, rows) for _, rows in table.groupby("metric", sort=False)]


def _terminal_table(ablation: Ablation, rows: pd.DataFrame) -> Table:
    one = rows.iloc[0]
    clips, seeds = count(int(one.clips), "clip"), count(int(one.seeds), "seed")
    titles = (label(one.metric), "95 % interval", "std of seeds", f"minus {one.arm}", "95 % interval")
    shown = Table(
        Column("arm", overflow="fold"),
        *(Column(title, justify="right", no_wrap=True) for title in titles),
        box=None,
        title=f"{label(one.metric)} of the ensemble, {one.corpus} {one.split}, {clips}, {seeds}, commit {one.commit}",
        title_justify="left",
    )
    for row in rows.itertuples():
        first = row.arm == one.arm
        shown.add_row(
            str(row.arm),
            f"{row.value:.3f}",
            f"{row.low:.3f} to {row.high:.3f}",
            NONE if pd.isna(row.seed_std) else f"{row.seed_std:.3f}",
            NONE if first else f"{row.delta:+.3f}",
            NONE if first else f"{row.delta_low:+.3f} to {row.delta_high:+.3f}",
        )
    return shown


def render(ablation: Ablation, table: pd.DataFrame) -> str:
    """Return the page as HTML that loads nothing from elsewhere."""
    first = ablation.arms[0]
    compared = [
        SystemComparison(metric=row["metric"], a=row["arm"], b=first, delta=row["delta"],
                         ci95=(row["delta_low"], row["delta_high"]))
        for row in table.to_dict("records")
        if row["arm"] != first
    ]  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = {
        str(metric): of_metric.astype(object).where(of_metric.notna(), None).to_dict("records")
        for metric, of_metric in table.groupby("metric", sort=False)
    }
    return template("ablation.html").render(
        name=ablation.name,
        first=first,
        seeds=ablation.seeds,
        one=table.iloc[0].to_dict(),
        synthetic=_target_kind(ablation.runs[0].experiment) == KIND,
        tables=rows,
        charts=forests(compared, f"minus that of {first}", "a"),
        runs={arm: [run.experiment.name for run in ablation.of(arm)] for arm in ablation.arms},
    )


def _target_kind(experiment: Experiment) -> str:
    return experiment.corpora[experiment.target_corpus].kind
