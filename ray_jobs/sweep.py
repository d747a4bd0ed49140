"""sweep: search a member's training settings by the value that chooses its epochs (Ray Train in Ray Tune, ASHA or PBT).

Example: enclap sweep experiments/demo.yaml retriever-bge sweep.trials=8

A trial trains the member as `train` does, in a run of its own; it reports every epoch to Tune, and ASHA ends it early
if others did better after as many epochs. The member as it is written is trial 0. The run itself is not changed: the
settings found are in sweep/<member>/best.yaml, an experiment that `train` takes.

With `sweep.scheduler=pbt` no trial ends early: poor ones go on with the weights of better ones, under settings near
theirs. The result is a schedule of settings and the weights trained by it: best.json has the schedule,
sweep/<member>/model the weights, and best.yaml the settings of the best epoch.
"""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import yaml
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler

from models.console import say
from models.files import atomic_directory, copy_directory, write_frame, write_text
from models.fingerprint import fingerprint
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.features.dataset import require_features
from ray_jobs.results.best import BestSweep
from ray_jobs.results.member import MemberMetrics
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, commit, is_done, mark_done, require
from ray_jobs.run.entry import run_command
from ray_jobs.train import check_resources
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.plan import requests
from ray_jobs.training.trainer import collect_progress, this_node
from ray_jobs.tuning.sweep_space import own_value, space, with_settings
from ray_jobs.tuning.sweep_trial import EXCHANGES, OUTPUT, SCHEDULE, TrialRequest, run_trial
from ray_jobs.tuning.trials import TrialLines, make_scheduler, make_searcher, plain, run_trials, spell_settings
from ray_jobs.tuning.worker_groups import ACTOR, FreeStopped, WorkerGroups

# The resources of a trial's function, which only waits for its trainer: a byte, since Tune wants it to ask for some.
# A CPU, or a part of one, would be missing where a worker needs it, and trials would wait without end.
DRIVER = {"memory": 1}


def run(experiment: Experiment, member: str) -> None:
    """Fill sweep/<member>/ with best.json, best.yaml and trials.parquet; with model/ where a population was trained.

    Raises:
        ConfigError: the member or the space does not exist, or the space does not fit the member or the scheduler.
    """
    domains = space(experiment, member)
    directory = RunDirectory(experiment)
    require_features(directory)
    for edge in experiment.members[member].edges():
        require(directory.member(edge), directory.member_inputs(edge), "train", experiment.name, experiment.time_limit)
    check_resources(experiment)
    if experiment.sweep.scheduler == "pbt" and _concurrent(experiment, member) < experiment.sweep.trials:
        raise ConfigError(
            f"sweep.trials: a population is trained side by side, and of {experiment.sweep.trials} trials only "
            f"{_concurrent(experiment, member)} find room; lower it or members.{member}.resources"
        )
    target = directory.sweep(member)
    inputs = fingerprint(directory.member_inputs(member), experiment.sweep, sorted(domains))
    if is_done(target, inputs):
        say(f"sweep: {member} is done already")
        return
    monitor, sign = _monitor(experiment, directory, member)
    trials = _run_trials(experiment, directory, member, domains, (monitor, "max" if sign > 0 else "min"), inputs)
    order = (sign * trials[monitor]).fillna(-float("inf"))
    best_trial = trials.iloc[int(order.to_numpy().argmax())]
    best = _best(experiment, member, list(domains), trials, best_trial, monitor)
    _write(target, experiment, best, trials, best_trial)
    mark_done(target, inputs)
    storage.remove(target / "runs")
    say(f"sweep: {member}: {monitor} {best.value:.4g} with {spell_settings(best.settings)}")
    say(f"sweep: `enclap train {target / 'best.yaml'}` trains it")


def _monitor(experiment: Experiment, directory: RunDirectory, member: str) -> tuple[str, int]:
    """Return the validation value that chooses the epochs of this kind of member, and +1 where more is better."""
    from ray_jobs.training.tasks.base import make_task

    task = make_task(MemberJob.of(experiment, directory, member))
    return task.monitor, task.sign


def _best(
    experiment: Experiment, member: str, fields: list[str], trials: pd.DataFrame, best_trial: pd.Series, monitor: str
) -> BestSweep:
    own = trials.loc[trials["own"], monitor]
    return BestSweep(
        member=member,
        settings={field: plain(best_trial[field]) for field in fields},
        chosen_by=monitor,
        value=float(best_trial[monitor]),
        own_value=float(own.iloc[0]) if len(own) else None,
        trials=len(trials),
        split="validation",
        seed=experiment.seed,
        commit=commit(),
        schedule=json.loads(best_trial[SCHEDULE]) if SCHEDULE in best_trial else None,
    )


def _write(target: Path, experiment: Experiment, best: BestSweep, trials: pd.DataFrame, best_trial: pd.Series) -> None:
    """Write all trials and the best one's settings, and the model of a population."""
    write_frame(target / "trials.parquet", trials)
    found = with_settings(experiment, best.member, best.settings)
    text = yaml.safe_dump(found.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text(target / "best.yaml", text)
    best.write(target)
    if OUTPUT in best_trial:
        with atomic_directory(target / "model") as model:
            copy_directory(storage.pull(Path(best_trial[OUTPUT])), model)
    storage.push(target)


# --- trials --------------------------------------------------------------------------------------------------------


def _run_trials(
    experiment: Experiment,
    directory: RunDirectory,
    member: str,
    domains: dict[str, Any],
    metric: tuple[str, str],
    inputs: str,
) -> pd.DataFrame:
    """Return a row for each trial with its best epoch; a sweep that was interrupted goes on where it was."""
    sweep, (monitor, mode) = experiment.sweep, metric
    folder = directory.sweep(member) / "runs"
    own = {field: own_value(experiment, member, field) for field in domains}
    name = f"sweep: {member}"
    say(f"{name}: {sweep.trials} trials over {', '.join(domains)}")
    progress = collect_progress()
    groups = WorkerGroups.options(name=ACTOR, label_selector=this_node()).remote()  # type: ignore[attr-defined]
    random.seed(experiment.seed)  # what Tune's population draws from
    np.random.seed(experiment.seed)
    results = run_trials(
        name,
        _trainable(experiment, member, folder, progress, groups),
        domains,
        tune.TuneConfig(
            metric=monitor,
            mode=mode,
            num_samples=sweep.trials,
            max_concurrent_trials=_concurrent(experiment, member),
            # Tune's population takes no searcher but random
            search_alg=make_searcher("random" if sweep.scheduler == "pbt" else sweep.searcher, [own], experiment.seed),
            scheduler=_scheduler(experiment, member, domains),
        ),
        tune.RunConfig(
            name=inputs,
            **storage.for_ray(folder),
            callbacks=[TrialLines(name, monitor, "after {epoch} epochs"), FreeStopped()],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4),  # Tune's advice to a population: above 2
            verbose=0,
        ),
    )
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


def _trainable(experiment: Experiment, member: str, folder: Path, progress: Any, groups: Any) -> Any:
    """Return the function of a trial, which asks for nothing and stays on this node; arguments as in `TrialRequest`."""
    return tune.with_resources(
        tune.with_parameters(run_trial, request=TrialRequest(experiment, member, folder, commit(), progress, groups)),
        tune.PlacementGroupFactory([DRIVER], bundle_label_selector=[this_node()]),
    )


def _population(results: tune.ResultGrid, own: dict[str, Any], monitor: str) -> pd.DataFrame:
    """Return a row for each trial with the best epoch of the weights it ended with, whichever trial trained that."""
    rows = []
    for result in results:
        if result.error or not result.metrics:
            continue
        schedule = json.loads(result.metrics[SCHEDULE])
        best = MemberMetrics.read(Path(result.metrics[OUTPUT])).best
        settings = [part["settings"] for part in schedule if part["after_epoch"] < best["epoch"]][-1]
        rows.append(
            {
                **settings,
                monitor: best[monitor],
                "best_epoch": best["epoch"],
                "seconds": result.metrics["time_total_s"],
                "own": [part["settings"] for part in schedule] == [own],
                **{key: result.metrics[key] for key in (SCHEDULE, OUTPUT)},
            }
        )
    return pd.DataFrame(rows)


def _scheduler(experiment: Experiment, member: str, domains: dict[str, Any]) -> TrialScheduler:
    sweep, epochs = experiment.sweep, experiment.members[member].epochs
    if sweep.scheduler == "pbt":
        # not `synch`: there, all others wait without end for a trial that has failed or ended early
        return PopulationBasedTraining(
            time_attr=EXCHANGES,
            perturbation_interval=1,
            hyperparam_mutations=domains,
            custom_explore_fn=partial(_within, domains),
        )
    # one epoch more than there are: a trial with all its epochs ends by itself, and frees its workers
    return make_scheduler(sweep.scheduler, "epoch", min(sweep.grace_epochs, epochs), epochs + 1, sweep.reduction)


def _within(domains: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings clipped to their bounds: a population multiplies values."""
    return {field: min(max(value, domains[field].lower), domains[field].upper) for field, value in settings.items()}


def _concurrent(experiment: Experiment, member: str) -> int:
    """Return the number of trials at a time: as configured, else as many as the cluster holds workers for."""
    if experiment.sweep.concurrent:
        return experiment.sweep.concurrent
    total = ray.cluster_resources()
    wanted = requests(experiment.members[member])
    return max(1, int(min(total.get(key, 0.0) // amount for key, amount in wanted.items() if amount)))


if __name__ == "__main__":
    run_command("sweep")
