"""ablate: run all arms of an ablation with all its seeds, what they share only once, and compare the arms.

Example: enclap ablate experiments/ablations/codec.yaml seeds=[0]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from models.console import count, say, show
from models.files import write_frame, write_text
from models.fingerprint import fingerprint
from ray_jobs import combine, prepare, search, train
from ray_jobs.ablation.arms import Ablation, Run, load_ablation
from ray_jobs.ablation.page import render, terminal_tables
from ray_jobs.ablation.shared import share_candidates, share_features, share_members
from ray_jobs.ablation.side_by_side import runs_that_fit, work_on
from ray_jobs.ablation.table import TABLE, compare_arms
from ray_jobs.results.table import read_table
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, is_done, mark_done
from ray_jobs.run.entry import run_command
from ray_jobs.run.lock import only_writer
from ray_jobs.run.session import connect
from ray_jobs.train import MembersFailedError
from ray_jobs.training import tracking

RESULTS = "results"


def run(file: Path, overrides: list[str], at_once: int | None = None) -> None:
    """Run what is not done yet of an ablation, write results/, and print the table.

    What runs that are not begun need of corpora and published weights is looked for before Ray is started. All runs are
    prepared before any member is trained.

    Args:
        at_once: runs that are worked on side by side; if None, as many as the cluster can train at the same time.

    Raises:
        ConfigError: if an arm cannot be used, or lacks files, before any work.
        MembersFailedError: naming the runs of which members failed; all others are done.
    """
    ablation = load_ablation(file, overrides)
    for one in ablation.runs:
        tracking.check(one.experiment)
    with only_writer(ablation.root):
        _run_all(ablation, at_once)
        results = ablation.root / RESULTS
        inputs = fingerprint({one.experiment.name: _directory(one).results_inputs() for one in ablation.runs})
        if is_done(results, inputs):
            say("ablate: done already")
        else:
            _write_results(ablation, results)
            mark_done(results, inputs)
    for table in terminal_tables(read_table(storage.pull(results) / TABLE, "ablate")):
        show(table)
    say(f"table   {storage.uri(results / TABLE)}")
    say(f"report  {storage.uri(results / 'index.html')}")


def _run_all(ablation: Ablation, at_once: int | None) -> None:
    todo = [one for one in ablation.runs if not _is_combined(one)]
    done = len(ablation.runs) - len(todo)
    what = f"{count(len(ablation.arms), 'arm')}, {count(len(ablation.seeds), 'seed')}"
    say(f"ablate: {what}: {count(len(todo), 'run')} to do, {done} done already")
    if not todo:
        return
    _check_files([one for one in todo if not storage.exists(_directory(one).record)])
    connect()
    for one in todo:
        say(f"ablate: {one.experiment.name}: prepare", style="bold")
        with _writing(one) as directory:
            share_features(directory, _others(ablation, one))
            prepare.run(one.experiment)
    failed = []

    def finish(one: Run) -> None:
        say(f"ablate: {one.experiment.name}: train, search, combine", style="bold")
        try:
            with _writing(one) as directory:
                share_members(directory, _others(ablation, one))
                train.run(one.experiment)
                share_candidates(directory, _others(ablation, one))
                search.run(one.experiment)
                combine.run(one.experiment)
        except MembersFailedError as error:
            failed.append(f"{one.experiment.name}: {error}")
            say(f"ablate: {failed[-1]}", style="red")

    at_once = at_once or runs_that_fit(todo, ray.cluster_resources())
    if at_once > 1:
        say(f"ablate: {at_once} runs side by side (--at-once)")
    work_on(todo, finish, at_once)
    if failed:
        raise MembersFailedError("\n".join(failed))


def _check_files(runs: list[Run]) -> None:
    """Raise ConfigError, naming all that is missing of corpora and published weights with the arms that need it."""
    from ray_jobs.diagnosis.needs import missing_files, refuse_missing

    arms = {one.arm: one for one in runs}  # its seeds need the same
    refuse_missing({arm: missing_files(one.experiment) for arm, one in arms.items()})


def _directory(one: Run) -> RunDirectory:
    return RunDirectory(one.experiment)


def _is_combined(one: Run) -> bool:
    return is_done(_directory(one).ensemble, _directory(one).results_inputs())


def _others(ablation: Ablation, one: Run) -> list[RunDirectory]:
    return [_directory(other) for other in ablation.runs if other is not one]


@contextmanager
def _writing(one: Run) -> Iterator[RunDirectory]:
    """Hold a run's directory, with its record written."""
    directory = _directory(one)
    with only_writer(directory.root):
        directory.write_experiment()
        yield directory


def _write_results(ablation: Ablation, results: Path) -> None:
    table = compare_arms(ablation)
    write_frame(results / TABLE, table)
    write_text(results / "index.html", render(ablation, table))
    storage.push(results)


if __name__ == "__main__":
    run_command("ablate")
