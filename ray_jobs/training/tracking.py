"""Log a training's values after every epoch: always as JSON lines and for TensorBoard, and with MLflow and Weights &
Biases where the experiment's `tracking` names them.

Each training is one run under the experiment's name; a resumed training goes on in the same run. The trackers' own
environment variables on every node say where values are sent: MLFLOW_TRACKING_URI, WANDB_MODE, WANDB_API_KEY and so on.
Without MLFLOW_TRACKING_URI, MLflow writes mlflow.db in the run directory; W&B keeps its files in the output directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Protocol

from models.fingerprint import fingerprint
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.run import storage
from ray_jobs.run.log import tell
from ray_jobs.training.job import TrainingJob
from ray_jobs.training.tasks.base import Validation

MLFLOW_URI = "MLFLOW_TRACKING_URI"
INPUTS = "enclap.inputs"  # MLflow's tag with the fingerprint of the settings


class Tracker(Protocol):
    """Receives the values of every finished epoch."""

    def log(self, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


def check(experiment: Experiment) -> None:
    """Refuse trackers that cannot work here.

    Raises:
        ConfigError: naming the tracker, and what is missing.
    """
    for name in experiment.tracking:
        if reason := missing_tracker(name):
            raise ConfigError(f"tracking: {reason}")
    if "mlflow" in experiment.tracking and "://" in experiment.storage_path and not os.environ.get(MLFLOW_URI):
        raise ConfigError(f"tracking: mlflow needs {MLFLOW_URI} where storage_path is a URI, which holds no database")


def missing_tracker(name: str) -> str:
    """Return that a tracker's package is missing, and what brings it; empty where it is there."""
    remedy = f"`pip install -e '.[{name}]'` gets it, on every node"
    return f"{name} is missing ({remedy})" if find_spec(name) is None else ""


class Tracking:
    """The log and the trackers of a training, which only its first worker has."""

    def __init__(self, job: TrainingJob, workers: int, epoch: int = 0, step: int = 0) -> None:
        """Start or resume a training's log; `epoch` epochs are done already, and `step` steps of the next one."""
        self.output = job.output
        self.trackers: list[Tracker] = [TensorBoard(job), *(TRACKERS[name](job) for name in job.tracking)]
        tell(self.output, "resumed" if epoch or step else "started", epoch=epoch, step=step, workers=workers)

    def log(self, epoch: Validation) -> None:
        """Log the values and warnings of a finished epoch."""
        tell(self.output, "epoch", **epoch.values)
        for warning in epoch.warnings:
            tell(self.output, "warning", message=warning)
        for tracker in self.trackers:
            self._attempt(tracker, partial(tracker.log, epoch.values))

    def close(self) -> None:
        """Log the end of the training."""
        for tracker in self.trackers:
            self._attempt(tracker, tracker.close)
        tell(self.output, "finished")

    def _attempt(self, tracker: Tracker, act: Callable[[], None]) -> None:
        """Call a tracker, and leave it out from then on if it fails: watching a training must not end it."""
        try:
            act()
        except Exception as error:
            self.trackers = [other for other in self.trackers if other is not tracker]
            tell(self.output, "tracking failed", tracker=type(tracker).__name__, error=str(error))


class TensorBoard:
    """Writes tensorboard/<name>/ in the run directory."""

    def __init__(self, job: TrainingJob) -> None:
        self.folder = job.run / "tensorboard" / job.name

    def log(self, values: dict[str, float]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.folder)) as board:
            for key, value in values.items():
                board.add_scalar(key, value, int(values["epoch"]))
        storage.push(self.folder)

    def close(self) -> None:
        pass


class MLflow:
    """Logs to a run of MLflow, with the training's settings as its parameters."""

    def __init__(self, job: TrainingJob) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException

        self.client = mlflow.MlflowClient(os.environ.get(MLFLOW_URI) or f"sqlite:///{job.run / 'mlflow.db'}")
        try:
            experiment = self.client.create_experiment(job.experiment)
        except MlflowException:
            known = self.client.get_experiment_by_name(job.experiment)  # another training was first
            if known is None:
                raise
            experiment = known.experiment_id
        own = f"attributes.run_name = '{job.name}' and tags.`{INPUTS}` = '{job.inputs}'"
        if found := self.client.search_runs([experiment], own):
            self.run = found[0].info.run_id
            self.client.update_run(self.run, "RUNNING")
        else:
            created = self.client.create_run(experiment, run_name=job.name, tags={INPUTS: job.inputs})
            self.run = created.info.run_id
            self.client.log_param(self.run, "kind", job.kind)
            for key, value in job.training.model_dump(mode="json").items():
                self.client.log_param(self.run, key, value)

    def log(self, values: dict[str, float]) -> None:
        for key, value in values.items():
            # no name may have the @ of map@10
            self.client.log_metric(self.run, key.replace("@", "_at_"), value, step=int(values["epoch"]))

    def close(self) -> None:
        self.client.set_terminated(self.run)


class WeightsAndBiases:
    """Logs to a run of Weights & Biases."""

    def __init__(self, job: TrainingJob) -> None:
        import wandb

        self.run = wandb.init(
            project=job.experiment,
            name=job.name,
            id=fingerprint(job.experiment, job.name, job.inputs),
            resume="allow",
            dir=str(job.output),
            config=job.settings(),
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, values: dict[str, float]) -> None:
        self.run.log(values, step=int(values["epoch"]))

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[TrainingJob], Tracker]] = {"mlflow": MLflow, "wandb": WeightsAndBiases}
