"""sweep: a member's training settings, by the value that chooses its epochs (Ray Train inside Ray Tune, ASHA or PBT).

Example: enclap sweep experiments/demo.yaml retriever-bge sweep.trials=8

A trial is what `train` does with the member, in a run of its own; it tells Tune of every epoch, and ASHA ends it early
if others did better in as many. The member as it is written is trial 0. Nothing of the run itself is changed: the
settings found lie in sweep/<member>/best.yaml, an experiment that `train` takes.

With `sweep.scheduler=pbt` no trial ends early: the poor ones go on with the weights of better ones, under settings near
theirs. What it finds is a schedule of settings, and the weights that this schedule made: best.json has the one,
sweep/<member>/model the others, and best.yaml the settings of the best epoch.
"""

from __future__ import annotations

import json
import random
import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from models.files import write_frame, write_json, write_text
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.fingerprint import fingerprint
from ray_jobs.run import storage
from ray_jobs.run.console import say
from ray_jobs.run.directory import RunDirectory, commit, is_done, mark_done, require
from ray_jobs.run.entry import run_command
from ray_jobs.train import check_resources
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.plan import requests
from ray_jobs.training.trainer import collect_progress, this_node
from ray_jobs.tuning.sweep_space import own_value, space, with_settings
from ray_jobs.tuning.sweep_trial import EXCHANGES, GROUPS, OUTPUT, SCHEDULE, FreeStopped, WorkerGroups, run_trial

# Of the function that only waits for its trainer: a byte, since Tune wants it to ask for something. A CPU, or a part of
# one, would be missing where a worker needs it, and trials would wait for ever.
DRIVER = {"memory": 1}


def run(experiment: Experiment, member: str) -> None:
    """Fill sweep/<member>/ with best.json, best.yaml and trials.parquet; with model/ where a population was trained.

    Raises:
        ConfigError: no such member or space, or one that does not fit the member or the scheduler.
    """
    domains = space(experiment, member)
    directory = RunDirectory(experiment)
    for corpus in experiment.corpora:
        require(directory.features(corpus), directory.features_inputs(), "prepare", experiment.name)
    for edge in experiment.members[member].edges():
        require(directory.member(edge), directory.member_inputs(edge), "train", experiment.name)
    check_resources(experiment)
    if experiment.sweep.scheduler == "pbt" and _concurrent(experiment, member) < experiment.sweep.trials:
        raise ConfigError(
            f"sweep.trials: a population is trained at once, and of {experiment.sweep.trials} trials only "
            f"{_concurrent(experiment, member)} find room; lower it, or what members.{member}.resources asks for"
        )
    target = directory.root / "sweep" / member
    inputs = fingerprint(directory.member_inputs(member), experiment.sweep, sorted(domains))
    if is_done(target, inputs):
        say(f"sweep: {member} is done already")
        return
    monitor, sign = _monitor(experiment, directory, member)
    trials = _run_trials(experiment, directory, member, domains, (monitor, "max" if sign > 0 else "min"), inputs)
    order = (sign * trials[monitor]).fillna(-float("inf"))
    best = trials.iloc[int(order.to_numpy().argmax())]
    settings = {field: _plain(best[field]) for field in domains}
    write_frame(target / "trials.parquet", trials)
    found = with_settings(experiment, member, settings)
    text = yaml.safe_dump(found.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text(target / "best.yaml", text)
    own = trials.loc[trials["own"], monitor]
    write_json(
        target / "best.json",
        {
            "member": member, "settings": settings, "chosen_by": monitor, "value": float(best[monitor]),
            "own_value": float(own.iloc[0]) if len(own) else None, "trials": len(trials), "split": "validation",
            "seed": experiment.seed, "commit": commit(),
            **({SCHEDULE: json.loads(best[SCHEDULE])} if SCHEDULE in best else {}),
        },
    )  # fmt: skip
    if OUTPUT in best:
        shutil.copytree(storage.pull(Path(best[OUTPUT])), target / "model", dirs_exist_ok=True)
    storage.push(target)
    mark_done(target, inputs)
    storage.remove(target / "runs")
    say(f"sweep: {member}: {monitor} {best[monitor]:.4g} with {_shown(settings)}")
    say(f"sweep: `enclap train {target / 'best.yaml'}` trains it")


def _monitor(experiment: Experiment, directory: RunDirectory, member: str) -> tuple[str, int]:
    """The validation value that chooses this kind's epochs, and +1 where more is better."""
    from ray_jobs.training.tasks.registry import make_task

    task = make_task(MemberJob.of(experiment, directory, member))
    return task.monitor, task.sign


# --- trials --------------------------------------------------------------------------------------------------------


def _run_trials(
    experiment: Experiment, directory: RunDirectory, member: str, domains: dict[str, Any], metric: tuple[str, str],
    inputs: str,
) -> pd.DataFrame:  # fmt: skip
    """A row a trial with its best epoch; a sweep that was killed goes on where it was."""
    sweep, (monitor, mode) = experiment.sweep, metric
    folder = directory.root / "sweep" / member / "runs"
    place = storage.for_ray(folder)
    path, store = f"{place['storage_path']}/{inputs}", place.get("storage_filesystem")
    progress = collect_progress()
    groups = WorkerGroups.options(name=GROUPS, label_selector=this_node()).remote()  # type: ignore[attr-defined]
    trainable = tune.with_resources(
        tune.with_parameters(
            run_trial, experiment_json=experiment.model_dump_json(), member=member, folder=folder,
            commit_=commit(), progress=progress, groups=groups,
        ),
        tune.PlacementGroupFactory([DRIVER], bundle_label_selector=[this_node()]),
    )  # fmt: skip
    own = {field: own_value(experiment, member, field) for field in domains}
    say(f"sweep: {member}: {sweep.trials} trials over {', '.join(domains)}")
    random.seed(experiment.seed)  # what Tune's population draws from
    np.random.seed(experiment.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna's notes on its own experimental features
        if tune.Tuner.can_restore(path, store):
            say("sweep: goes on where it was stopped")
            tuner = tune.Tuner.restore(
                path, trainable, resume_unfinished=True, param_space=domains, storage_filesystem=store
            )
        else:
            tuner = tune.Tuner(
                trainable,
                param_space=domains,
                tune_config=tune.TuneConfig(
                    metric=monitor,
                    mode=mode,
                    num_samples=sweep.trials,
                    max_concurrent_trials=_concurrent(experiment, member),
                    search_alg=_searcher(experiment, own),
                    scheduler=_scheduler(experiment, member, domains),
                ),
                run_config=tune.RunConfig(
                    name=inputs,
                    **place,
                    callbacks=[_TrialLines(monitor), FreeStopped()],
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=4),  # Tune's advice to a population: above 2
                    verbose=0,
                ),
            )
        results = tuner.fit()
    if results.num_errors == len(results):
        raise RuntimeError(f"all {len(results)} trials failed, the first: {results.errors[0]}")
    if results.num_errors:
        say(f"sweep: {results.num_errors} trials failed, the first: {results.errors[0]}", style="yellow")
    if sweep.scheduler == "pbt":
        return _population(results, own, monitor)
    frame = results.get_dataframe(filter_metric=monitor, filter_mode=mode)
    frame = frame[frame[monitor].notna()]
    trials = pd.DataFrame({field: frame[f"config/{field}"] for field in domains})
    return trials.assign(
        **{monitor: frame[monitor], "best_epoch": frame["epoch"], "seconds": frame["time_total_s"]},
        own=[trial == own for trial in trials.to_dict("records")],
    ).reset_index(drop=True)


def _population(results: tune.ResultGrid, own: dict[str, Any], monitor: str) -> pd.DataFrame:
    """A row a trial with the best epoch behind the weights that it ended with, whichever trial that was in."""
    rows = []
    for result in results:
        if result.error or not result.metrics:
            continue
        schedule = json.loads(result.metrics[SCHEDULE])
        best = json.loads(storage.read_text(Path(result.metrics[OUTPUT]) / "metrics.json"))["best"]
        settings = [part["settings"] for part in schedule if part["after_epoch"] < best["epoch"]][-1]
        rows.append(
            {
                **settings, monitor: best[monitor], "best_epoch": best["epoch"],
                "seconds": result.metrics["time_total_s"], "own": [part["settings"] for part in schedule] == [own],
                **{key: result.metrics[key] for key in (SCHEDULE, OUTPUT)},
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _searcher(experiment: Experiment, own: dict[str, Any]) -> Searcher | SearchAlgorithm:
    sweep = experiment.sweep
    if sweep.searcher == "random" or sweep.scheduler == "pbt":  # Tune's population takes no other
        return BasicVariantGenerator(points_to_evaluate=[own], random_state=experiment.seed)
    return OptunaSearch(seed=experiment.seed, points_to_evaluate=[own])


def _scheduler(experiment: Experiment, member: str, domains: dict[str, Any]) -> TrialScheduler:
    sweep, epochs = experiment.sweep, experiment.members[member].training.epochs
    if sweep.scheduler == "none":
        return FIFOScheduler()
    if sweep.scheduler == "pbt":
        # Not `synch`: there, a trial that fails or ends early lets all others wait for it for ever.
        return PopulationBasedTraining(
            time_attr=EXCHANGES, perturbation_interval=1, hyperparam_mutations=domains,
            custom_explore_fn=partial(_within, domains),
        )  # fmt: skip
    # A trial that has all its epochs ends by itself, and frees its workers.
    return ASHAScheduler(
        time_attr="epoch", max_t=epochs + 1, grace_period=min(sweep.grace_epochs, epochs),
        reduction_factor=sweep.reduction,
    )  # fmt: skip


def _within(domains: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Settings held within their bounds: a population multiplies values."""
    return {field: min(max(value, domains[field].lower), domains[field].upper) for field, value in settings.items()}


def _concurrent(experiment: Experiment, member: str) -> int:
    """As many trials at a time as the cluster holds workers for, or as are wanted."""
    if experiment.sweep.concurrent:
        return experiment.sweep.concurrent
    total = ray.cluster_resources()
    wanted = requests(experiment.members[member])
    return max(1, int(min(total.get(key, 0.0) // amount for key, amount in wanted.items() if amount)))


class _TrialLines(tune.Callback):
    """A line a finished trial."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        finished = 1 + sum(other.is_finished() for other in trials if other is not trial)
        value, epochs = trial.last_result[self.monitor], trial.last_result["epoch"]
        say(f"sweep: trial {finished}: {_shown(trial.config)}  {self.monitor} {value:.4g} after {epochs} epochs")


def _shown(settings: dict[str, Any]) -> str:
    shown = {field: f"{value:.4g}" if isinstance(value, float) else value for field, value in settings.items()}
    return "  ".join(f"{field} {value}" for field, value in shown.items())


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


if __name__ == "__main__":
    run_command("sweep")
