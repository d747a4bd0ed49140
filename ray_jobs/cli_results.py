"""The part of the command line that looks at what runs left, and at this machine; nothing here starts Ray."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from ray_jobs.options import AsJson, CsvFile, Overrides, PlotFile, RunOrFile, Runs, split_names


def command_module(name: str) -> Any:
    """Return the module of a command, which is imported when it runs."""
    return import_module(f"ray_jobs.{name}")


def status(
    run: RunOrFile,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Show which parts of a run are prepared, trained, searched and combined, and which process works on it.

    Exit codes: 0 done or under way; 1 a member failed, or work was stopped and waits to be resumed; 2 no such run.

    Example: [bold]enclap status runs/demo[/bold]
    """
    command_module("status").run(run, overrides or [], as_json)


def leaderboard(
    run: RunOrFile,
    overrides: Overrides = None,
    extra_metrics: Annotated[
        str, typer.Option(help="Further metrics, comma-separated: spider,fense,r@1", show_default=False)
    ] = "",
    csv: CsvFile = None,
) -> None:
    """Rank every system of a run, single or combined, by value, interval and cost, from files alone.

    Example: [bold]enclap leaderboard runs/demo --extra-metrics rouge_l,r@1 --csv systems.csv[/bold]
    """
    command_module("leaderboard").run(run, overrides or [], split_names(extra_metrics), csv)


def compare(
    runs: Runs,
    metric: Annotated[
        str, typer.Option(help="Metrics, comma-separated: fense,r@1. Those of `combine` when left out")
    ] = "",
    system: Annotated[str, typer.Option(help="The system of each run, such as captioner-bpe/beam")] = "ensemble",
    csv: CsvFile = None,
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs on the test clips that they share: paired bootstrap, Holm's correction, forest plot.

    Runs of other test clips or other settings of metrics are refused (exit code 2). Only files are read.

    Example: [bold]enclap compare runs/a runs/b runs/c --metric fense,map@10 --plot compared.svg[/bold]
    """
    command_module("compare").run(runs, split_names(metric), system, csv, plot, as_json)


def codes(
    runs: Runs,
    corpus: Annotated[str | None, typer.Option(help="A corpus of the run; the target corpus when left out")] = None,
    split: Annotated[str, typer.Option(help="Splits, comma-separated; all when left out")] = "",
    csv: CsvFile = None,
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """Say how prepared codes use their codec's codebooks: entries, entropy, shared information; several side by side.

    Example: [bold]enclap codes runs/demo runs/other-codec --split train --plot codes.svg[/bold]
    """
    command_module("codes").run(runs, corpus, split_names(split), csv, plot, as_json)


def similarity(
    run: RunOrFile,
    overrides: Overrides = None,
    csv: CsvFile = None,
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare matched with mismatched pairs of text and audio by each retriever on the test split: AUC, hubs.

    Example: [bold]enclap similarity runs/demo --plot similarity.svg[/bold]
    """
    command_module("similarity").run(run, overrides or [], csv, plot, as_json)


def doctor(
    experiment: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="An experiment: say what it needs, too", show_default=False),
    ] = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """List metrics and optional parts of this machine, what is missing, and the command that gets it.

    Exit codes: 0 all is there that the experiment needs; 1 something of that is missing; 2 no such experiment.

    Example: [bold]enclap doctor[/bold]

    Example: [bold]enclap doctor experiments/demo.yaml[/bold]
    """
    from ray_jobs.experiment.loading import load_experiment

    command_module("doctor").run(load_experiment(experiment, overrides) if experiment else None, as_json)
