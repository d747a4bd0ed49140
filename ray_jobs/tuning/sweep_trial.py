"""A trial of a sweep: one trainer inside Ray Tune, which may go on with the weights of another trial."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.train import Checkpoint, UserCallback
from ray.util.queue import Queue

from models.fingerprint import fingerprint
from ray_jobs.experiment.config import Experiment
from ray_jobs.results.table import read_table
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory
from ray_jobs.training.job import TrainingRequest
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.trainer import make_trainer, this_node, work
from ray_jobs.tuning.sweep_space import with_settings
from ray_jobs.tuning.worker_groups import register_workers

# The keys of a report beside metrics. The schedule: settings, and the epoch after which each applied. EXCHANGES numbers
# the epochs with an exchange; it is 0 in all others and in the last epoch, after which nothing is trained.
SCHEDULE, OUTPUT, EXCHANGES = "schedule", "output", "exchanges"
KEPT_FOR_TUNE = 3  # checkpoints: one waits in the queue, the trainer waits with the next, and a third is being copied


@dataclass(frozen=True)
class TrialRequest:
    """What all trials of a sweep have in common."""

    experiment: Experiment
    member: str
    folder: Path  # of the trials, for models and checkpoints
    commit: str
    progress: Any  # the actor that collects lines for the terminal
    groups: Any  # the actor `WorkerGroups`


def run_trial(config: dict[str, Any], request: TrialRequest) -> None:
    """Train the member with these settings and report every epoch to Tune.

    Ray's own `TuneReportCallback` reports metrics alone, and population-based training would have no weights to hand
    on. So the trainer runs in a thread, and its epochs are reported from here: in a population, those of an exchange
    with their checkpoint. Where Tune hands a checkpoint over, of this trial or a better one, training goes on with its
    weights under `config`. The trainer's name is made of both, so that an interrupted trial goes on where it was.

    Args:
        config: values of the member's fields, by dotted path.
    """
    experiment = with_settings(request.experiment, request.member, config)
    job = MemberJob.of(experiment, RunDirectory(experiment), request.member)
    is_population, every = experiment.sweep.scheduler == "pbt", experiment.sweep.exchange_epochs
    epochs = job.training.last_epoch
    start = tune.get_checkpoint()
    schedule = _schedule(start, config)
    inputs = fingerprint(job.inputs, start.path) if start else job.inputs
    job = replace(job, inputs=inputs, output=request.folder / "members" / inputs, tracking=())
    reports = Queue(1, actor_options={"num_cpus": 0, "label_selector": this_node()})
    failures = list[Exception]()
    trial, groups = tune.get_context().get_trial_id(), request.groups

    def registered_work(training: TrainingRequest) -> None:
        register_workers(groups, trial)
        work(training)

    trainer = make_trainer(
        TrainingRequest(job, request.commit, request.progress, start),
        request.folder / "checkpoints",
        [_Reports(reports)],
        keep=KEPT_FOR_TUNE if is_population else 1,
        worker=registered_work,
    )

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            failures.append(error)
        reports.put(None)

    threading.Thread(target=fit, daemon=True).start()  # a daemon: Tune stops a trial by ending its process
    said = json.dumps(schedule)
    epoch = 0
    while report := reports.get():
        metrics, kept = report
        epoch, checkpoint = metrics["epoch"], None
        if is_population and epoch < epochs and epoch % every == 0:
            checkpoint = tune.Checkpoint(kept.path, kept.filesystem)
            checkpoint.update_metadata({SCHEDULE: schedule, "epoch": epoch})
        exchanges = epoch // every if checkpoint else 0
        more = {SCHEDULE: said, OUTPUT: str(job.output), EXCHANGES: exchanges}
        tune.report({**metrics, **more}, checkpoint=checkpoint)
    if failures:
        raise failures[0]
    if not epoch:  # the training was published, and the sweep was killed before it could tell Tune
        history = read_table(storage.pull(job.output) / "history.parquet", "sweep")
        last = {str(key): value for key, value in history.iloc[-1].items()}
        tune.report({**last, SCHEDULE: said, OUTPUT: str(job.output), EXCHANGES: 0})


def _schedule(start: tune.Checkpoint | None, config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings that the weights were trained under, in whichever trials, and then this trial's own."""
    if not start:
        return [{"after_epoch": 0, "settings": config}]
    known = start.get_metadata()
    before: list[dict[str, Any]] = known[SCHEDULE]
    if before[-1]["settings"] == config:
        return before
    return [*before, {"after_epoch": known["epoch"], "settings": config}]


class _Reports(UserCallback):
    """Puts what the first worker reports of whole epochs into a queue, with its checkpoint, and waits until it fits."""

    def __init__(self, reports: Queue) -> None:
        self.reports = reports

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        if checkpoint and "step" not in metrics[0]:
            self.reports.put((metrics[0], checkpoint))
