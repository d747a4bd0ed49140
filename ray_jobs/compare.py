"""compare: compare runs with each other on the test clips that they share, from their files alone.

Example: enclap compare runs/a runs/b --plot compared.svg
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.table import Column, Table

from models.commands.output import STDOUT, print_data, write_csv
from models.console import messages, show
from ray_jobs.reporting.charts import label, write_chart
from ray_jobs.reporting.comparable_runs import ComparableRun
from ray_jobs.reporting.comparison import LEVEL, compare_runs, forest
from ray_jobs.reporting.outputs import outputs_reserved
from ray_jobs.results.comparison import MetricComparison, RunsComparison
from ray_jobs.results.time_limit import without_left_out
from ray_jobs.run.entry import run_command
from ray_jobs.run.recorded import open_run

NAME_WIDTH = 10  # characters to which names are folded at most


def run(
    sources: Sequence[str],
    metrics: Sequence[str],
    system: str,
    csv: Path | None = None,
    plot: Path | None = None,
    as_json: bool = False,
) -> None:
    """Show the values of runs and the differences of all pairs, and write them where that is asked for.

    Args:
        sources: run directories, their URIs, or experiment files.
        metrics, system: see `compare_runs`.
        csv: file to write; `-` is standard output, and the tables then go to standard error.
        plot: file of the forest plot.
        as_json: whether to print all that was found as JSON in place of tables.

    Raises:
        ConfigError: if there is no such run or experiment.
        NotReadyError: if `combine` has not run on one of them.
        ComparisonError, InputError, RecordError, TooFewClipsError: see `compare_runs`.
    """
    with outputs_reserved(sources, csv, plot, as_json):
        runs = [ComparableRun.read(without_left_out(open_run(source))) for source in sources]
        found = compare_runs(runs, system, metrics)
        if as_json:
            print_data(found.model_dump_json(indent=2))
        for shown in () if as_json else _tables(found):
            messages.print(shown) if csv == STDOUT else show(shown)
        for note in found.notes:
            messages.print(note, style="yellow")
        if csv:
            write_csv(found.to_frame(), csv)
        if plot:
            write_chart(plot, forest, found)


def _tables(found: RunsComparison) -> list[RenderableType]:
    """Return the runs with their values, and a table of differences for each metric, each below a line of its own."""
    whole = all(run.clips == found.clips for run in found.runs)
    tested = f"{found.system} on the {found.split} split of {found.corpus} ({found.corpus_kind}), "
    shown: list[RenderableType] = [
        tested + (f"all {found.clips:,} clips" if whole else f"the {found.clips:,} clips that all runs share"),
        _runs(found),
    ]
    for metric in found.metrics:
        over = f"{found.clips:,} clips" if metric.task == "captioning" else f"{metric.items:,} queries, clip by clip"
        family = f"Holm over {len(metric.pairs)} pairs" if len(metric.pairs) > 1 else "one pair"
        shown += [
            "",
            f"{label(metric.metric)} ({metric.settings}): paired bootstrap over {over}, {found.resamples:,} resamples, "
            f"seed {found.bootstrap_seed}, {family}, better at {LEVEL:.0%}",
            _pairs(metric),
        ]
    return shown


def _runs(found: RunsComparison) -> Table:
    table = Table(
        Column("run", overflow="fold", min_width=NAME_WIDTH),
        *(Column(label(metric.metric), justify="right", no_wrap=True) for metric in found.metrics),
        *(Column(title, justify="right", no_wrap=True) for title in ("test clips", "seed")),
        Column("commit", overflow="fold"),
        box=None,
    )
    for run in found.runs:
        values = [f"{metric.values[run.name]:.3f}" for metric in found.metrics]
        table.add_row(run.name, *values, f"{run.clips:,}", str(run.seed), run.commit)
    return table


def _pairs(metric: MetricComparison) -> Table:
    table = Table(
        *(Column(title, overflow="fold", min_width=NAME_WIDTH) for title in ("a", "b")),
        *(Column(title, justify="right", no_wrap=True) for title in ("a - b", "95 % interval", "p", "p (Holm)")),
        Column("better", no_wrap=True),
        box=None,
    )
    for pair in metric.pairs:
        low, high = pair.ci95
        interval = f"{low:+.3f} to {high:+.3f}"
        better = {pair.a: "a", pair.b: "b"}.get(pair.better or "", "-")
        p_values = [f"{p:.4f}" for p in (pair.p_value, pair.p_holm)]
        table.add_row(pair.a, pair.b, f"{pair.delta:+.3f}", interval, *p_values, better)
    return table


if __name__ == "__main__":
    run_command("compare")
