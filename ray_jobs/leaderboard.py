"""leaderboard: rank all systems of a run by value, interval and cost, from its files alone.

Example: enclap leaderboard runs/demo
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from models.commands.output import STDOUT, write_csv
from models.console import PIPE_WIDTH, console, messages, show, spell_duration
from ray_jobs.reporting.charts import label
from ray_jobs.reporting.leaderboard import Entry, Leaderboard, read_leaderboard
from ray_jobs.reporting.outputs import outputs_reserved
from ray_jobs.results.time_limit import without_left_out
from ray_jobs.run.directory import RunDirectory
from ray_jobs.run.entry import run_command
from ray_jobs.run.recorded import open_run

NONE = "-"
NEEDS = "needs"
NAME_WIDTH = 16  # characters to which names are folded at most
WIDE = Console(width=PIPE_WIDTH)  # measures a table as if there was room for all of it
EXPENDABLE = (NEEDS, "training", "parameters", "s/clip", "validation")  # columns, the first to go first


def run(source: str, overrides: list[str], extra_metrics: list[str], csv: Path | None) -> None:
    """Show the systems of a run, best first, and write them as CSV where that is asked for.

    Args:
        source: a run directory, its URI, or an experiment file.
        overrides: of the experiment file.
        extra_metrics: further metrics whose test values are shown.
        csv: file to write; `-` is standard output, and the table then goes to standard error.

    Raises:
        ConfigError: if there is no such run or experiment.
        InputError, RecordError: see `outputs_reserved` and `read_leaderboard`.
    """
    with outputs_reserved([source], csv):
        experiment = without_left_out(open_run(source, overrides))
        found = read_leaderboard(experiment, RunDirectory(experiment), extra_metrics)
        room = messages.width if csv == STDOUT else console.width if console.is_terminal else PIPE_WIDTH
        for task in ("captioning", "retrieval"):
            if entries := found.of(task):
                table = _fitting(task, entries, found, room)
                messages.print(table) if csv == STDOUT else show(table)
        if found.note:
            messages.print(found.note, style="yellow")
        if csv:
            write_csv(found.to_frame(), csv)


def _table(task: str, entries: list[Entry], found: Leaderboard, left_out: Collection[str] = ()) -> Table:
    """Return the table of a task, without some of its columns and those in which no system has anything."""
    metric = label(entries[0].metric)
    own = [metric for metric in found.extra_metrics if any(metric in entry.extra for entry in entries)]
    cells: dict[str, list[str]] = {
        "validation": [_number(entry.validation) for entry in entries],
        "test": [_number(entry.test) for entry in entries],
        "95 % interval": [f"{e.ci95[0]:.3f} to {e.ci95[1]:.3f}" if e.ci95 else NONE for e in entries],
        **{label(metric): [_number(entry.extra.get(metric)) for entry in entries] for metric in own},
        "parameters": [NONE if e.parameters is None else f"{e.parameters:,}" for e in entries],
        "training": [NONE if e.training_s is None else spell_duration(e.training_s) for e in entries],
        "s/clip": [_number(entry.seconds) for entry in entries],
        "Pareto": ["*" if entry.pareto else "" for entry in entries],
        NEEDS: [" ".join(entry.members) for entry in entries],
    }
    cells = {title: column for title, column in cells.items() if {*column} - {NONE, ""}}
    shown = {title: column for title, column in cells.items() if title not in left_out}
    unshown = [title for title in left_out if title in cells]
    table = Table(
        Column(task, overflow="fold", min_width=NAME_WIDTH),
        *(Column(title, justify="right", no_wrap=True) for title in shown if title != NEEDS),
        *(Column(title, overflow="fold", min_width=NAME_WIDTH) for title in shown if title == NEEDS),
        box=None,
        title=f"{task} by {metric}" + (f" (--csv has {', '.join(unshown)})" if unshown else ""),
        title_justify="left",
    )
    for entry, *row in zip(entries, *shown.values(), strict=True):
        table.add_row(entry.system + (" (inherited)" if entry.inherited_from else ""), *row)
    return table


def _fitting(task: str, entries: list[Entry], found: Leaderboard, room: int) -> Table:
    """Return the table of a task without the columns for which `room` characters are too few: numbers are never cut."""
    for number in range(len(EXPENDABLE)):
        table = _table(task, entries, found, EXPENDABLE[:number])
        if WIDE.measure(table).minimum <= room:
            return table
    return _table(task, entries, found, EXPENDABLE)


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return NONE
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    run_command("leaderboard")
