"""What is logged of a member, epoch by epoch: its log, TensorBoard's curves, MLflow and W&B."""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import mlflow
import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ray_jobs.experiment.config import ConfigError
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.member import note_failure
from ray_jobs.run.directory import RunDirectory
from ray_jobs.run.log import LOG
from ray_jobs.training import tracking
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.tasks.base import Validation
from ray_jobs.training.tracking import Tracking, check

from ..conftest import ROOT

EPOCHS = [{"epoch": epoch, "train_loss": 1.0 / epoch, "map@10": 0.1 * epoch} for epoch in (1, 2, 3)]


@pytest.fixture
def job(tmp_path: Path) -> MemberJob:
    experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={tmp_path}"])
    return MemberJob.of(experiment, RunDirectory(experiment), "retriever-bge")


def train(job: MemberJob) -> None:
    """Two epochs; then, in another process perhaps, the third."""
    first = Tracking(job, workers=2)
    first.log(Validation(EPOCHS[0]))
    first.log(Validation(EPOCHS[1], ["all captions are alike"]))
    for tracker in first.trackers:
        tracker.close()
    time.sleep(1)  # W&B names directories by the second
    resumed = Tracking(job, workers=2, epoch=2)
    resumed.log(Validation(EPOCHS[2]))
    resumed.close()


def events(job: MemberJob) -> list[str]:
    return [line["event"] for line in log(job)]


def log(job: MemberJob) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.output / LOG).read_text(encoding="utf-8").splitlines()]


def test_the_log_and_the_curves_are_always_there(job: MemberJob) -> None:
    train(job)
    assert events(job) == ["started", "epoch", "epoch", "warning", "resumed", "epoch", "finished"]
    assert [{key: line[key] for key in EPOCHS[0]} for line in log(job) if line["event"] == "epoch"] == EPOCHS
    assert all(line["member"] == "retriever-bge" and line["time"] > 1e9 and line["host"] for line in log(job))
    curves = EventAccumulator(str(job.run / "tensorboard" / "retriever-bge")).Reload()
    assert [(point.step, round(point.value, 6)) for point in curves.Scalars("map@10")] == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_the_reason_of_a_failure_is_in_the_log(job: MemberJob, tmp_path: Path) -> None:
    experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={tmp_path}"])
    note_failure(RunDirectory(experiment).member("retriever-bge"), 2, "loss nan")
    assert [(line["event"], line["error"]) for line in log(job)] == [("failed", "loss nan")]


def test_mlflow(job: MemberJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train(replace(job, tracking=("mlflow",)))
    train(replace(job, name="retriever-bert", tracking=("mlflow",)))
    client = mlflow.MlflowClient(f"sqlite:///{job.run / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["retriever-bert", "retriever-bge"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert (run.data.params["kind"], run.data.params["batch_size"]) == ("retriever", "16")
        history = client.get_metric_history(run.info.run_id, "map_at_10")
        assert [(point.step, point.value) for point in history] == [(v["epoch"], v["map@10"]) for v in EPOCHS]


def wandb_records(content: bytes) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format after seven bytes, in one block as long as it is small."""
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")  # generated: its classes are made on import
    assert content.startswith(b":W&B")
    assert len(content) < 32768
    at = 7
    while at < len(content):
        length, whole = struct.unpack_from("<HB", content, at + 4)
        assert whole == 1
        yield messages.Record.FromString(content[at + 7 : at + 7 + length])
        at += 7 + length


def test_wandb_offline(job: MemberJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(replace(job, tracking=("wandb",)))
    wandb.teardown()  # waits for its service, which writes the last records after a run's end
    assert "tracking failed" not in events(job)
    rows, runs = [], []
    for file in sorted((job.output / "wandb").glob("offline-run-*/*.wandb")):
        for record in wandb_records(file.read_bytes()):
            if record.HasField("history"):
                items = record.history.item
                rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
            if record.HasField("run"):
                runs.append((record.run.project, record.run.display_name, record.run.run_id))
    assert [(row["_step"], row["map@10"]) for row in rows] == [(v["epoch"], v["map@10"]) for v in EPOCHS]
    assert len(set(runs)) == 1, "the resumed training is the same run"
    assert runs[0][:2] == ("smoke", "retriever-bge")


def test_a_tracker_that_fails_does_not_end_the_training(job: MemberJob, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, job: MemberJob) -> None:
            pass

        def log(self, values: dict[str, float]) -> None:
            raise ConnectionError("no route to host")

        def close(self) -> None:
            raise AssertionError("was left out")

    monkeypatch.setitem(tracking.TRACKERS, "mlflow", Broken)
    watched = Tracking(replace(job, tracking=("mlflow",)), workers=1)
    watched.log(Validation(EPOCHS[0]))
    watched.log(Validation(EPOCHS[1]))
    watched.close()
    assert events(job) == ["started", "epoch", "tracking failed", "epoch", "finished"]
    assert "no route to host" in log(job)[2]["error"]


def test_what_cannot_work_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    smoke = ROOT / "experiments" / "smoke.yaml"
    with pytest.raises(ConfigError, match=r"tracking.*mlflow"):
        load_experiment(smoke, ["tracking=[mlfow]"])
    check(load_experiment(smoke, []))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    in_a_store = load_experiment(smoke, ["tracking=[mlflow]"])
    in_a_store.storage_path = "s3://bucket/runs"
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        check(in_a_store)
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tracking: wandb.*pip install -e '\.\[wandb\]'"):
        check(load_experiment(smoke, ["tracking=[wandb]"]))
