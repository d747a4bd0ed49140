"""refit: train the members again with what was found, on the training and the validation split together.

Example: enclap refit experiments/demo.yaml refit=true
"""

from __future__ import annotations

from models.console import say
from ray_jobs import train
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.run.directory import RunDirectory, require
from ray_jobs.run.entry import run_command
from ray_jobs.training.refit import Refit, kept_members


def run(experiment: Experiment) -> None:
    """Train every `<member>_full` that is not trained yet.

    Raises:
        ConfigError: if the experiment does not ask for it, so that `export` would not take what is trained.
        NotReadyError: if `combine` has not run on this experiment: members whose values are not known have none to
            hand on.
        MembersFailedError: see `train`.
    """
    check(experiment)
    for name, reason in kept_members(experiment).items():
        say(f"refit: {name} stays as it is: {reason}")
    train.run(Refit.read(experiment))


def check(experiment: Experiment) -> None:
    """Check that there is something to train again; Ray need not run.

    Raises:
        ConfigError, NotReadyError: see `run`.
    """
    if not experiment.refit:
        raise ConfigError(f"{experiment.name}: refit: found false, expected true, in the file or as refit=true")
    directory = RunDirectory(experiment)
    require(directory.ensemble, directory.search_inputs(), "combine", experiment.name)


if __name__ == "__main__":
    run_command("refit")
