"""pipeline: run prepare, train, search, combine, refit, export and report, skipping what is done and unchanged.

Example: enclap pipeline experiments/demo.yaml
"""

from __future__ import annotations

from rich.table import Table

from corpora.soundscapes.corpus import KIND
from models.console import say, show
from ray_jobs import combine, export, prepare, refit, report, search, train
from ray_jobs.diagnosis.needs import refuse_missing
from ray_jobs.experiment.config import Experiment
from ray_jobs.reporting.charts import label
from ray_jobs.results.metrics import EnsembleMetrics, Systems
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory
from ray_jobs.run.entry import run_command
from ray_jobs.training import tracking


def check(experiment: Experiment) -> None:
    """Check the trackers, and that the files are there which `prepare` and `train` read; Ray need not run.

    Raises:
        ConfigError: naming a tracker, or all that is missing.
    """
    tracking.check(experiment)
    refuse_missing({"": [*prepare.missing(experiment), *train.missing(experiment)]})


def run(experiment: Experiment) -> None:
    """Run all jobs in order and print the summary."""
    tracking.check(experiment)
    for job in (prepare, train, search, combine, *([refit] if experiment.refit else []), export, report):
        job.run(experiment)
    summarise(experiment)


def summarise(experiment: Experiment) -> None:
    """Print the test values of every system, and where the results are."""
    directory = RunDirectory(experiment)
    metrics = EnsembleMetrics.read(directory.ensemble)
    where = f"{metrics.corpus} {metrics.split}, {metrics.clips} clips"
    if metrics.corpus_kind == KIND:
        where += " (built-in synthetic corpus: says nothing about Clotho)"
    captioning = ["cider_d", "rouge_l", "bleu_4", "unique_captions"]
    show(_table(f"Captioning, {where}", metrics.captioning, captioning))
    show(_table(f"Text-to-audio retrieval, {where}", metrics.retrieval, ["map@10", "r@1", "r@5", "r@10"]))
    say(f"bundle  {storage.uri(directory.bundle)}")
    say(f"report  {storage.uri(directory.report / 'index.html')}")


def _table(title: str, systems: Systems, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("system")
    for column in columns:
        table.add_column(label(column), justify="right")
    for system, values in systems.items():
        cells = [values[column] for column in columns]
        table.add_row(system, *(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells))
    return table


if __name__ == "__main__":
    run_command("pipeline")
