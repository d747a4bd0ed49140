"""report: write a self-contained page of a run, tables, curves and searches, and one to browse all test clips.

Example: enclap report experiments/demo.yaml
"""

from __future__ import annotations

from models.console import say
from models.files import write_text
from ray_jobs.experiment.config import Experiment
from ray_jobs.features.dataset import read_features
from ray_jobs.reporting.browser import browse, write_media
from ray_jobs.reporting.page import render, render_browser
from ray_jobs.results.time_limit import cut_lines, without_left_out
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, is_done, mark_done, require
from ray_jobs.run.entry import run_command
from ray_jobs.training.refit import finished_refit, report_inputs


def run(experiment: Experiment) -> None:
    """Write report/: index.html, and clips.html with clips/, from what the other jobs left in the run directory.

    Raises:
        NotReadyError: if `combine` has not run on this experiment.
        RecordError: if what search or combine wrote cannot be read.
    """
    cuts = cut_lines(experiment)
    experiment = without_left_out(experiment)
    directory = RunDirectory(experiment)
    check(experiment)
    inputs = report_inputs(directory, finished_refit(experiment))
    if is_done(directory.report, inputs):
        say("report: done already")
        return
    _pull(experiment, directory)
    browser = browse(experiment, directory)
    page = render(experiment, directory, cuts, browsable=browser is not None)
    write_text(directory.report / "index.html", page)
    if browser:
        write_text(directory.report / "clips.html", render_browser(experiment, browser))
        features = read_features([directory.features(experiment.target_corpus, "test")])
        write_media(features, experiment.features.max_duration_s, directory.report / "clips")
    storage.push(directory.report)
    mark_done(directory.report, inputs)
    say(f"report: {directory.report / 'index.html'} ({len(page.encode()) / 2**20:.1f} MiB)")


def check(experiment: Experiment) -> None:
    """Check that there is something to report.

    Raises:
        NotReadyError: if `combine` has not run on this experiment.
    """
    directory = RunDirectory(without_left_out(experiment))
    require(directory.ensemble, directory.results_inputs(), "combine", experiment.name)


def _pull(experiment: Experiment, directory: RunDirectory) -> None:
    """Fetch what the page shows from the run's store."""
    searches = map(directory.search, ("retrieval", "sampling", "reranking"))
    quarantines = (directory.features(corpus) / "quarantine.parquet" for corpus in experiment.corpora)
    members = map(directory.member, experiment.members)
    for path in (directory.ensemble, *searches, *quarantines, *members):
        storage.pull(path)


if __name__ == "__main__":
    run_command("report")
