"""Where a member's values go after every epoch: a log of JSON lines and TensorBoard's curves always, MLflow and
Weights & Biases where the experiment's `tracking` names them.

One run a member, under the experiment's name; a training that is resumed goes on in the same run. Where the values are
sent is said in the trackers' own variables, on every node: MLFLOW_TRACKING_URI, WANDB_MODE, WANDB_API_KEY and the like.
Without MLFLOW_TRACKING_URI, MLflow's are in mlflow.db in the run directory; W&B keeps its files in the member's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Protocol

from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.fingerprint import fingerprint
from ray_jobs.run import storage
from ray_jobs.run.log import tell
from ray_jobs.training.member_job import MemberJob

MLFLOW_URI = "MLFLOW_TRACKING_URI"
INPUTS = "enclap.inputs"  # MLflow's tag of the settings that a member is made from


class Tracker(Protocol):
    """Takes the values of every finished epoch, as history.parquet has them."""

    def log(self, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


def check(experiment: Experiment) -> None:
    """Refuse trackers that cannot work.

    Raises:
        ConfigError: naming the tracker, and what is missing.
    """
    for name in experiment.tracking:
        if find_spec(name) is None:
            raise ConfigError(f"tracking: {name} is missing; every node needs `pip install 'enclap-ensemble[{name}]'`")
    if "mlflow" in experiment.tracking and "://" in experiment.storage_path and not os.environ.get(MLFLOW_URI):
        raise ConfigError(f"tracking: mlflow needs {MLFLOW_URI} where storage_path is a URI, which holds no database")


class Tracking:
    """The log and the trackers of a member; of its workers the first alone has them."""

    def __init__(self, job: MemberJob, epoch: int, workers: int) -> None:
        """`epoch`: how many are done already."""
        self.output = job.output
        self.trackers: list[Tracker] = [TensorBoard(job), *(TRACKERS[name](job) for name in job.tracking)]
        tell(self.output, "resumed" if epoch else "started", epoch=epoch, workers=workers)

    def log(self, values: dict[str, float], warning: str | None) -> None:
        """Log a finished epoch, and what its validation warns of."""
        tell(self.output, "epoch", **values)
        if warning:
            tell(self.output, "warning", message=warning)
        for tracker in self.trackers:
            self._attempt(tracker, partial(tracker.log, values))

    def close(self) -> None:
        """Say that the training is at its end."""
        for tracker in self.trackers:
            self._attempt(tracker, tracker.close)
        tell(self.output, "finished")

    def _attempt(self, tracker: Tracker, act: Callable[[], None]) -> None:
        """What watches a training must not end it: a tracker that fails is left out from then on."""
        try:
            act()
        except Exception as error:
            self.trackers = [other for other in self.trackers if other is not tracker]
            tell(self.output, "tracking failed", tracker=type(tracker).__name__, error=str(error))


class TensorBoard:
    """tensorboard/<member>/ in the run directory."""

    def __init__(self, job: MemberJob) -> None:
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
    """A run of MLflow, with the settings of the training as its parameters."""

    def __init__(self, job: MemberJob) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException

        self.client = mlflow.MlflowClient(os.environ.get(MLFLOW_URI) or f"sqlite:///{job.run / 'mlflow.db'}")
        try:
            experiment = self.client.create_experiment(job.experiment)
        except MlflowException:
            known = self.client.get_experiment_by_name(job.experiment)  # another member was first
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
            self.client.log_param(self.run, "kind", job.member.kind)
            for key, value in job.member.training.model_dump(mode="json").items():
                self.client.log_param(self.run, key, value)

    def log(self, values: dict[str, float]) -> None:
        for key, value in values.items():
            # no name may have the @ of map@10
            self.client.log_metric(self.run, key.replace("@", "_at_"), value, step=int(values["epoch"]))

    def close(self) -> None:
        self.client.set_terminated(self.run)


class WeightsAndBiases:
    """A run of Weights & Biases."""

    def __init__(self, job: MemberJob) -> None:
        import wandb

        self.run = wandb.init(
            project=job.experiment,
            name=job.name,
            id=fingerprint(job.experiment, job.name, job.inputs),
            resume="allow",
            dir=str(job.output),
            config=job.member.model_dump(mode="json"),
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, values: dict[str, float]) -> None:
        self.run.log(values, step=int(values["epoch"]))

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[MemberJob], Tracker]] = {"mlflow": MLflow, "wandb": WeightsAndBiases}
