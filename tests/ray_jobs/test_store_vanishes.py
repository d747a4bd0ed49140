"""A store that vanishes in an epoch: an error that names it, nothing lost, and the same command resumes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from ray_jobs.experiment.loading import load_experiment
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory
from ray_jobs.status import read_status

from .conftest import ROOT
from .object_store import CREDENTIALS, ObjectStore, Request

MEMBER, STEPS, BATCH, CLIPS_PER_SHARD = "retriever-bge", 12, 4, 2
SAVED = 4  # steps between checkpoints
BOUND = 16  # shards that a node's disk may hold, of the training's 24
SHARD_BYTES = 11_000


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    found = ObjectStore()
    yield found
    found.stop()


@pytest.fixture
def experiment(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of an experiment in the store: one retriever, an epoch of many small shards."""
    for split, clips in (("train", STEPS * BATCH), ("validation", 6)):
        (tmp_path / split).mkdir()
        for number in range(clips):
            tone = 0.3 * np.sin(np.arange(8000 + 100 * number) * (0.05 + 0.01 * number))
            soundfile.write(tmp_path / split / f"{split}{number}.wav", tone, 16_000)
        rows = [{"file_name": f"{split}{number}.wav", "caption_1": f"tone number {number}"} for number in range(clips)]
        pd.DataFrame(rows).to_csv(tmp_path / f"{split}.csv", index=False)
    raw = yaml.safe_load((ROOT / "experiments" / "smoke.yaml").read_text(encoding="utf-8"))
    member = raw["members"][MEMBER]
    member["training"] |= {"epochs": 1, "batch_size": BATCH, "shuffle_clips": 2 * CLIPS_PER_SHARD}
    member["resources"] = {
        "checkpoint_steps": SAVED,
        "retries": 0,
        "read_ahead": 1,
        "reader_threads": 1,
        "feature_cache_gb": BOUND * SHARD_BYTES / 1e9,
    }
    raw |= {"members": {MEMBER: member}, "storage_path": store.uri("runs")}
    raw["features"]["clips_per_shard"] = CLIPS_PER_SHARD
    raw["corpora"]["soundscapes"] = {"kind": "folder", "root": str(tmp_path), "splits": ["train", "validation"]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    for name, value in (CREDENTIALS | {"ENCLAP_CACHE": str(tmp_path / "cache"), "RAY_ADDRESS": "local"}).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "small.yaml"


def _enclap(job: str, experiment: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, in a process of its own."""
    command = [sys.executable, "-m", f"ray_jobs.{job}", str(experiment)]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)


def is_noted(request: Request) -> bool:
    """Whether a checkpoint is noted: when the whole of it is in the store. Uploads begin and end with a POST."""
    return request[0] == "POST" and "manager_snapshot.json?uploadId" in request[1]


@pytest.mark.slow
def test_training_waits_for_a_store_that_stalls_for_a_minute(experiment: Path, store: ObjectStore) -> None:
    prepared = _enclap("prepare", experiment)
    assert prepared.returncode == 0, prepared.stderr
    store.stalls = is_noted
    trained = _enclap("train", experiment)
    assert store.stalled_until
    assert trained.returncode == 0, trained.stderr
    directory = RunDirectory(load_experiment(experiment))
    log = (storage.pull(directory.member(MEMBER)) / "log.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["started", "epoch", "finished"]


@pytest.mark.slow
def test_training_outlives_the_loss_of_its_store_in_an_epoch(experiment: Path, store: ObjectStore) -> None:
    prepared = _enclap("prepare", experiment)
    assert prepared.returncode == 0, prepared.stderr
    directory = RunDirectory(load_experiment(experiment))
    shards = storage.listing(directory.features("soundscapes", "train"), "*.arrow")
    assert len(shards) == STEPS * BATCH // CLIPS_PER_SHARD
    assert max(storage.source(shard).size() for shard in shards) <= SHARD_BYTES
    for shard in shards:
        storage.here(shard).unlink()  # as if another node had prepared them

    store.closes = is_noted
    lost = _enclap("train", experiment)
    assert not store.is_open
    assert lost.returncode == 1
    # What it wanted there when the store was gone depends on the time: a checkpoint, features, or its progress.
    assert re.search(rf"{MEMBER}: .*runs/smoke/(checkpoints|features|members)/", lost.stderr, re.DOTALL), lost.stderr
    assert "Traceback" not in lost.stderr
    left = [path for path in storage.here(shards[0]).parent.iterdir() if path.suffix == ".arrow"]
    assert 0 < len(left) <= BOUND

    store.is_open, store.closes = True, lambda request: False
    resumed = _enclap("train", experiment)
    assert resumed.returncode == 0, resumed.stderr
    (member,) = read_status(storage.uri(directory.root)).members
    assert member.state == "done"
    log = (storage.pull(directory.member(MEMBER)) / "log.jsonl").read_text(encoding="utf-8")
    events = [json.loads(line) for line in log.splitlines()]
    assert [event["event"] for event in events] == ["started", "resumed", "epoch", "finished"]
