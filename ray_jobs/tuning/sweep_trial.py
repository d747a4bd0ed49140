"""A trial of a sweep: one trainer inside Ray Tune, which may go on with the weights of another trial."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.train import Checkpoint, UserCallback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.queue import Queue

from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.fingerprint import fingerprint
from ray_jobs.run.directory import RunDirectory
from ray_jobs.training.job import TrainingRequest
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.trainer import make_trainer, this_node
from ray_jobs.tuning.sweep_space import with_settings

# What a report holds beside metrics. The schedule: settings, and the number of epochs behind which they applied.
# EXCHANGES counts the epochs of an exchange; 0 in all others and in the last one, where nothing would come of it.
SCHEDULE, OUTPUT, EXCHANGES = "schedule", "output", "exchanges"
GROUPS = "worker-groups"  # the name of the actor
KEPT_FOR_TUNE = 3  # one waits in the queue, the trainer waits with the next, and a third is being copied


def run_trial(
    config: dict[str, Any], experiment_json: str, member: str, folder: Path, commit_: str, progress: Any, groups: Any
) -> None:
    """Train the member with these settings and tell Tune of every epoch.

    Ray's own `TuneReportCallback` tells of metrics alone, and population-based training would have no weights to hand
    on. So the trainer runs in a thread, and its epochs are reported from here, in a population those of an exchange
    with their checkpoint. Where Tune hands one over, of this trial or a better one, training goes on with its weights
    under `config`. The trainer's name holds both, so that a trial that was killed goes on where it was.
    """
    experiment = with_settings(Experiment.model_validate_json(experiment_json), member, config)
    job = MemberJob.of(experiment, RunDirectory(experiment), member)
    is_population, every = experiment.sweep.scheduler == "pbt", experiment.sweep.exchange_epochs
    epochs = job.member.training.epochs
    given = tune.get_checkpoint()
    schedule = _schedule(given, config)
    inputs = fingerprint(job.inputs, given.path) if given else job.inputs
    job = replace(job, inputs=inputs, output=folder / "members" / inputs, tracking=())
    reports = Queue(1, actor_options={"num_cpus": 0, "label_selector": this_node()})
    failures = list[Exception]()
    callbacks = [_Reports(reports), _Register(groups, tune.get_context().get_trial_id())]
    request = TrainingRequest(job, commit_, progress, start=given)
    trainer = make_trainer(request, folder / "checkpoints", callbacks, keep=KEPT_FOR_TUNE if is_population else 1)

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            failures.append(error)
        reports.put(None)

    threading.Thread(target=fit, daemon=True).start()  # a daemon: Tune stops a trial by ending its process
    while report := reports.get():
        metrics, kept = report
        epoch, checkpoint = metrics["epoch"], None
        if is_population and epoch < epochs and epoch % every == 0:
            checkpoint = tune.Checkpoint(kept.path, kept.filesystem)
            checkpoint.update_metadata({SCHEDULE: schedule, "epoch": epoch})
        exchanges = epoch // every if checkpoint else 0
        told = {SCHEDULE: json.dumps(schedule), OUTPUT: str(job.output), EXCHANGES: exchanges}
        tune.report({**metrics, **told}, checkpoint=checkpoint)
    if failures:
        raise failures[0]


def _schedule(given: tune.Checkpoint | None, config: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings so far, of whichever trials the weights are from, and this trial's own behind them."""
    if not given:
        return [{"after_epoch": 0, "settings": config}]
    known = given.get_metadata()
    if known[SCHEDULE][-1]["settings"] == config:
        return known[SCHEDULE]
    return [*known[SCHEDULE], {"after_epoch": known["epoch"], "settings": config}]


@ray.remote(num_cpus=0)
class WorkerGroups:
    """The placement groups of trials' workers, which outlive a trainer that Tune ends along with its trial.

    Nobody else gives them back for sure: Ray Train's own cleaner asks the dashboard whether a trainer is alive, and
    gets no answer where there is none, or where several clusters run on a machine.
    """

    def __init__(self) -> None:
        self.groups: dict[str, PlacementGroup] = {}

    def register(self, trial: str, group: PlacementGroup) -> None:
        self.groups[trial] = group

    def give_back(self, trials: list[str]) -> None:
        for group in filter(None, (self.groups.pop(trial, None) for trial in trials)):
            remove_placement_group(group)


class FreeStopped(tune.Callback):
    """Gives back what trials held that run no longer."""

    def __init__(self) -> None:
        self.running: set[str] = set()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        running = {trial.trial_id for trial in trials if trial.status == trial.RUNNING}
        if over := self.running - running:
            # by its name: Tune keeps callbacks on disk, and a sweep that is resumed has another actor
            ray.get_actor(GROUPS).give_back.remote(sorted(over))
        self.running = running


class _Register(WorkerGroupCallback):
    """Tells WorkerGroups of a trial's."""

    def __init__(self, groups: Any, trial: str) -> None:
        self.groups, self.trial = groups, trial

    def after_worker_group_start(self, worker_group: Any) -> None:
        group = worker_group.get_worker_group_state().placement_group_handle.placement_group
        ray.get(self.groups.register.remote(self.trial, group))


class _Reports(UserCallback):
    """Hands on what the first worker reports of whole epochs, with their checkpoint; waits until it is taken."""

    def __init__(self, reports: Queue) -> None:
        self.reports = reports

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        if checkpoint and "step" not in metrics[0]:
            self.reports.put((metrics[0], checkpoint))
