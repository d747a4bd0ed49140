"""reproduce: run the experiment of a finished run again from its record, and compare all values.

Example: enclap reproduce runs/demo
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from models.console import count, show
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.run.directory import RunDirectory, require
from ray_jobs.run.entry import run_command
from ray_jobs.run.recorded import read_experiment

if TYPE_CHECKING:
    from ray_jobs.reporting.reproduction import Difference

SHOWN = 40  # differing values at most; the first ones are where the runs part


def repetition(source: str) -> Experiment:
    """Return the experiment of a run, under the name of its repetition beside it: NAME-again.

    Args:
        source: a run directory or its URI.

    Raises:
        ConfigError: if there is no such run, or it has a time limit, which cuts a run elsewhere each time.
        NotReadyError: if `combine` has not run: there is nothing to compare with.
    """
    experiment = read_experiment(source)
    directory = RunDirectory(experiment)
    require(directory.ensemble, directory.results_inputs(), "combine", experiment.name)
    if experiment.time_limit:
        raise ConfigError(f"{source}: found a time_limit, which cuts a run elsewhere each time; expected a run without")
    experiment.name += "-again"
    return experiment


def check(repeated: Experiment, source: str) -> None:
    """Check that what a repetition of `source` reads is there; see `pipeline.check`."""
    from ray_jobs import pipeline  # loads torch and Ray

    pipeline.check(repeated)


def run(repeated: Experiment, source: str) -> bool:
    """Run a repetition, skipping what is done of it already, and compare it with the run; return whether all is equal.

    Raises:
        RecordError: if a result of the run is missing or damaged.
    """
    from ray_jobs import pipeline  # loads torch and Ray
    from ray_jobs.reporting.reproduction import compare_runs

    pipeline.run(repeated)
    first = read_experiment(source)
    found = compare_runs(first, repeated)
    if found.surroundings:
        show(_table("Run elsewhere", found.surroundings, first, repeated))
    if not found.values:
        show(f"all {count(found.compared, 'value')} of {first.name} are the same in {repeated.name}")
        return True
    show(_table("Values that differ", found.values[:SHOWN], first, repeated))
    show(f"{len(found.values)} of {count(found.compared, 'value')} differ; the first are where the runs part")
    return False


def _table(title: str, differences: list[Difference], first: Experiment, second: Experiment) -> Table:
    table = Table("value", first.name, second.name, title=title, title_justify="left")
    for one in differences:
        table.add_row(one.name, str(one.first), str(one.second))
    return table


if __name__ == "__main__":
    run_command("reproduce")
