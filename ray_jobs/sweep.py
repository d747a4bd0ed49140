"""sweep: a member's training settings, by the value that chooses its epochs (Ray Train inside Ray Tune, ASHA).

Example: enclap sweep experiments/demo.yaml retriever-bge sweep.trials=8

A trial is what `train` does with the member, in a run of its own; it tells Tune of every epoch, and ASHA ends it early
if others did better in as many. The member as it is written is trial 0. Nothing of the run itself is changed: the
settings found lie in sweep/<member>/best.yaml, an experiment that `train` takes.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import yaml
from pydantic import ValidationError
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from models.files import write_frame, write_json
from ray_jobs import storage
from ray_jobs.config import ConfigError, Experiment, fingerprint
from ray_jobs.console import say
from ray_jobs.plan import requests
from ray_jobs.run_directory import RunDirectory, commit, is_done, mark_done, require
from ray_jobs.train import Progress, check_resources, make_trainer, member_job
from tune_spaces.training import SPACES

# Of the function that only waits for its trainer: a byte, since Tune wants it to ask for something. A CPU, or a part of
# one, would be missing where a worker needs it, and trials would wait for ever.
DRIVER = {"memory": 1}


def run(experiment: Experiment, member: str) -> None:
    """Fill sweep/<member>/ with best.json, best.yaml and trials.parquet.

    Raises:
        ConfigError: no such member or space, or a space that does not fit the member.
    """
    domains = space(experiment, member)
    directory = RunDirectory(experiment)
    for corpus in experiment.corpora:
        require(directory.features(corpus), directory.features_inputs(), "prepare", experiment.name)
    for edge in experiment.members[member].edges():
        require(directory.member(edge), directory.member_inputs(edge), "train", experiment.name)
    check_resources(experiment)
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
    (target / "best.yaml").write_text(
        yaml.safe_dump(found.model_dump(mode="json"), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    own = trials.loc[trials["own"], monitor]
    write_json(
        target / "best.json",
        {
            "member": member, "settings": settings, "chosen_by": monitor, "value": float(best[monitor]),
            "own_value": float(own.iloc[0]) if len(own) else None, "trials": len(trials), "split": "validation",
            "seed": experiment.seed, "commit": commit(),
        },
    )  # fmt: skip
    storage.push(target)
    mark_done(target, inputs)
    storage.remove(target / "runs")
    say(f"sweep: {member}: {monitor} {best[monitor]:.4g} with {_shown(settings)}")
    say(f"sweep: `enclap train {target / 'best.yaml'}` trains it")


def space(experiment: Experiment, member: str) -> dict[str, Any]:
    """The member's fields that vary, as dotted paths, and Tune's domain of each.

    Raises:
        ConfigError: no such member or space, or a field that this kind of member does not have.
    """
    if member not in experiment.members:
        raise ConfigError(f"sweep: {member!r} is not among members ({', '.join(experiment.members)})")
    settings = experiment.members[member]
    name = experiment.sweep.space or settings.kind
    if name not in SPACES:
        raise ConfigError(f"sweep.space: found {name!r}, expected one of {', '.join(SPACES)}")
    domains = {}
    for field, domain in SPACES[name].items():
        try:
            domains[field] = domain(own_value(experiment, member, field))
        except AttributeError as error:
            raise ConfigError(f"sweep.space: {name!r} varies {field}, which a {settings.kind} does not have") from error
    return domains


def own_value(experiment: Experiment, member: str, field: str) -> Any:
    """A member's field by its dotted path."""
    node: Any = experiment.members[member]
    for key in field.split("."):
        node = getattr(node, key)
    return node


def with_settings(experiment: Experiment, member: str, settings: dict[str, Any]) -> Experiment:
    """The experiment with some of a member's fields, by dotted path, set otherwise.

    Raises:
        ConfigError: values that the schema refuses.
    """
    raw = experiment.model_dump(mode="json")
    for field, value in settings.items():
        *parents, last = field.split(".")
        node = raw["members"][member]
        for key in parents:
            node = node[key]
        node[last] = value
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"sweep: {settings}: {error}") from error


def _monitor(experiment: Experiment, directory: RunDirectory, member: str) -> tuple[str, int]:
    """The validation value that chooses this kind's epochs, and +1 where more is better."""
    from ray_jobs.tasks import make_task

    task = make_task(member_job(experiment, directory, member))
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
    progress = Progress.remote()  # type: ignore[attr-defined]
    trainable = tune.with_resources(
        tune.with_parameters(
            _trial, experiment_json=experiment.model_dump_json(), member=member, folder=folder,
            commit_=commit(), progress=progress,
        ),
        DRIVER,
    )  # fmt: skip
    own = {field: own_value(experiment, member, field) for field in domains}
    say(f"sweep: {member}: {sweep.trials} trials over {', '.join(domains)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna's notes on its own experimental features
        if tune.Tuner.can_restore(path, store):
            say("sweep: goes on where it was stopped")
            tuner = tune.Tuner.restore(
                path, trainable, resume_unfinished=True, param_space=domains, storage_filesystem=store
            )
        else:
            epochs = experiment.members[member].training.epochs
            # A trial that has all its epochs ends by itself, and frees its workers.
            asha = ASHAScheduler(
                time_attr="epoch", max_t=epochs + 1, grace_period=min(sweep.grace_epochs, epochs),
                reduction_factor=sweep.reduction,
            )  # fmt: skip
            tuner = tune.Tuner(
                trainable,
                param_space=domains,
                tune_config=tune.TuneConfig(
                    metric=monitor,
                    mode=mode,
                    num_samples=sweep.trials,
                    max_concurrent_trials=sweep.concurrent or _concurrent(experiment, member),
                    search_alg=OptunaSearch(seed=experiment.seed, points_to_evaluate=[own])
                    if sweep.searcher == "optuna"
                    else BasicVariantGenerator(points_to_evaluate=[own], random_state=experiment.seed),
                    scheduler=asha if sweep.scheduler == "asha" else FIFOScheduler(),
                ),
                run_config=tune.RunConfig(name=inputs, **place, callbacks=[_TrialLines(monitor)], verbose=0),
            )
        results = tuner.fit()
    if results.num_errors == len(results):
        raise RuntimeError(f"all {len(results)} trials failed, the first: {results.errors[0]}")
    if results.num_errors:
        say(f"sweep: {results.num_errors} trials failed, the first: {results.errors[0]}", style="yellow")
    frame = results.get_dataframe(filter_metric=monitor, filter_mode=mode)
    frame = frame[frame[monitor].notna()]
    trials = pd.DataFrame({field: frame[f"config/{field}"] for field in domains})
    return trials.assign(
        **{monitor: frame[monitor], "best_epoch": frame["epoch"], "seconds": frame["time_total_s"]},
        own=[all(trial[field] == value for field, value in own.items()) for trial in trials.to_dict("records")],
    ).reset_index(drop=True)


def _concurrent(experiment: Experiment, member: str) -> int:
    """As many trials as the cluster holds workers for."""
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


def _trial(
    config: dict[str, Any], experiment_json: str, member: str, folder: Path, commit_: str, progress: Any
) -> None:
    """Train the member with these settings; the trainer's name holds them, so that a trial run again goes on."""
    from ray.tune.integration.ray_train import TuneReportCallback

    experiment = with_settings(Experiment.model_validate_json(experiment_json), member, config)
    job = member_job(experiment, RunDirectory(experiment), member)
    # what diverges once does so again
    once = job.member.model_copy(update={"resources": job.member.resources.model_copy(update={"retries": 0})})
    output = folder / "members" / job.inputs
    job = replace(job, member=once, output=output, tracking=())
    trainer = make_trainer(job, folder / "checkpoints", commit_, progress, [TuneReportCallback()])
    trainer.fit()


def _shown(settings: dict[str, Any]) -> str:
    return "  ".join(f"{field} {value:.4g}" for field, value in settings.items())


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


if __name__ == "__main__":
    import sys

    from ray_jobs.cli import main

    main(["sweep", *sys.argv[1:]])
