"""leaderboard: rank all systems of a run by value, interval and cost, from its files alone.

Example: enclap leaderboard runs/demo
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rich.table import Column, Table

from models.files import write_text
from ray_jobs.reporting.charts import label
from ray_jobs.reporting.leaderboard import Entry, Leaderboard, read_leaderboard
from ray_jobs.results.time_limit import without_left_out
from ray_jobs.run.console import messages, show, spell_duration
from ray_jobs.run.directory import RunDirectory
from ray_jobs.run.entry import run_command
from ray_jobs.run.recorded import open_run

STDOUT = "-"
NONE = "-"


def run(source: str, overrides: list[str], extra_metrics: list[str], csv: str | None) -> None:
    """Show the systems of a run, best first, and write them as CSV where that is asked for.

    Args:
        source: a run directory, its URI, or an experiment file.
        overrides: of the experiment file.
        extra_metrics: further metrics whose test values are shown.
        csv: file to write; `-` is standard output, and the table then goes to standard error.

    Raises:
        ConfigError: if there is no such run or experiment.
        InputError, RecordError: see `read_leaderboard`.
    """
    experiment = without_left_out(open_run(source, overrides))
    found = read_leaderboard(experiment, RunDirectory(experiment), extra_metrics)
    for task in ("captioning", "retrieval"):
        if entries := found.of(task):
            table = _table(task, entries, found)
            messages.print(table) if csv == STDOUT else show(table)
    if found.note:
        messages.print(found.note, style="yellow")
    if csv:
        _write_csv(found, csv)


def _write_csv(found: Leaderboard, csv: str) -> None:
    text = found.to_frame().to_csv(index=False, lineterminator="\n")
    if csv == STDOUT:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    else:
        write_text(Path(csv), text)


def _table(task: str, entries: list[Entry], found: Leaderboard) -> Table:
    metric = label(entries[0].metric)
    own = [metric for metric in found.extra_metrics if any(metric in entry.extra for entry in entries)]
    numbers = ("validation", "test", "95 % interval", *map(label, own), "parameters", "training")
    table = Table(
        Column(task, no_wrap=True),
        *(Column(title, justify="right", no_wrap=True) for title in numbers),
        Column("Pareto", justify="center"),
        Column("needs", overflow="fold"),
        box=None,
        title=f"{task} by {metric}",
        title_justify="left",
    )
    for entry in entries:
        table.add_row(
            entry.system,
            _number(entry.validation),
            _number(entry.test),
            f"{entry.ci95[0]:.3f} to {entry.ci95[1]:.3f}" if entry.ci95 else NONE,
            *(_number(entry.extra.get(metric)) for metric in own),
            NONE if entry.parameters is None else f"{entry.parameters:,}",
            NONE if entry.training_s is None else spell_duration(entry.training_s),
            "*" if entry.pareto else "",
            " ".join(entry.members),
        )
    return table


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return NONE
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    run_command("leaderboard")
