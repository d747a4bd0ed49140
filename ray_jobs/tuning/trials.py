"""Run the trials of a Ray Tune search: a new one, or the rest of one that was interrupted."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from models.console import say

# Before the name of a search in its storage. Tune's state is a pickle that names this project's modules: where these
# move, the state of an earlier version is left alone, and the search starts anew on the candidates that are there.
STATE = "state-2"


def run_trials(
    name: str,
    trainable: Any,
    space: dict[str, Any],
    tune_config: tune.TuneConfig,
    run_config: tune.RunConfig,
    resume_errored: bool = False,
) -> tune.ResultGrid:
    """Run all trials, or those that an interrupted search with the same storage and name has left.

    Args:
        name: of the search, as messages begin with it.
        trainable: the function of a trial, with its resources.
        space: Tune's domains by the name of the setting; the same when a search goes on.
        resume_errored: also run those trials of the earlier search again that failed. (Tune's other option, to restart
            them, gives them names that optuna's searcher does not know.)
    """
    run_config.name = f"{STATE}-{run_config.name}"
    path, filesystem = f"{run_config.storage_path}/{run_config.name}", run_config.storage_filesystem
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna's notes on its own experimental features
        tuner = None
        if tune.Tuner.can_restore(path, filesystem):
            try:
                tuner = tune.Tuner.restore(
                    path,
                    trainable,
                    resume_unfinished=True,
                    resume_errored=resume_errored,
                    param_space=space,
                    storage_filesystem=filesystem,
                )
                say(f"{name} goes on where it was stopped")
            except Exception as error:  # Tune writes its state in place: one that was cut off fails in many ways
                say(f"{name} starts anew: its state in {path} cannot be read ({error!r})", style="yellow")
        if tuner is None:
            tuner = tune.Tuner(trainable, param_space=space, tune_config=tune_config, run_config=run_config)
        return tuner.fit()


def make_searcher(kind: str, points: list[dict[str, Any]], seed: int) -> Searcher | SearchAlgorithm:
    """Return what proposes trials: first `points`, then optuna's guesses for "optuna", random ones for all others."""
    if kind == "optuna":
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of each study on standard error
        return OptunaSearch(seed=seed, points_to_evaluate=points)
    return BasicVariantGenerator(points_to_evaluate=points, random_state=seed)


def make_scheduler(kind: str, time_attr: str, grace: int, end: int, reduction: int) -> TrialScheduler:
    """Return what stops poor trials: asynchronous successive halving (arXiv 1810.05934) for "asha", nothing for others.

    Args:
        time_attr: the reported value by which trials are compared at equal progress, such as "epoch".
        grace: progress that every trial is given.
        end: progress at which a trial is stopped in any case.
        reduction: one trial of this number goes on at each comparison, and the next is at this multiple of progress.
    """
    if kind != "asha":
        return FIFOScheduler()
    return ASHAScheduler(time_attr=time_attr, grace_period=grace, max_t=end, reduction_factor=reduction)


class TrialLines(tune.Callback):
    """Prints a line for each finished trial: its number, its settings, its value, and the progress it is of.

    Args:
        progress: a template of the reported values, such as "after {epoch} epochs".
    """

    def __init__(self, name: str, metric: str, progress: str) -> None:
        self.name, self.metric, self.progress = name, metric, progress

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print the line, unless the trial was stopped before it reported anything."""
        if self.metric not in trial.last_result:
            return
        finished = 1 + sum(other.is_finished() for other in trials if other is not trial)
        value, progress = trial.last_result[self.metric], self.progress.format_map(trial.last_result)
        say(f"{self.name}: trial {finished}: {spell_settings(trial.config)}  {self.metric} {value:.4g} {progress}")


def spell_settings(settings: dict[str, Any]) -> str:
    """Return settings for a line on the terminal, numbers with four digits."""
    shown = {field: f"{value:.4g}" if isinstance(value, float) else value for field, value in settings.items()}
    return "  ".join(f"{field} {value}" for field, value in shown.items())


def plain(value: Any) -> Any:
    """Return a numpy scalar as a number of Python, and anything else as it is."""
    return value.item() if hasattr(value, "item") else value
