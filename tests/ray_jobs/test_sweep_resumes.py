"""A population of trials of two workers each is killed in the middle, goes on, and ends with what `train` takes.

As it starts, other nodes go away that the cluster still counts on.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from ray_jobs.experiment.loading import load_experiment

from .conftest import ROOT, RayCluster
from .test_chaos import spot_nodes

SETTINGS = [
    "sweep.scheduler=pbt",
    "sweep.trials=2",
    "sweep.exchange_epochs=1",
    "members.fluency.training.epochs=2",
    "members.fluency.resources={workers: 2, cpus_per_worker: 0.5}",
]


@pytest.mark.timeout(900)
@pytest.mark.ci
@pytest.mark.slow
def test_a_killed_sweep_goes_on(cluster: RayCluster, smoke_run: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke_run / "features", tmp_path / "smoke" / "features")
    command = [
        sys.executable,
        "-u",
        "-m",
        "ray_jobs.sweep",
        "experiments/smoke.yaml",
        "fluency",
        f"storage_path={tmp_path}",
        *SETTINGS,
    ]
    environment = cluster.environment | {"RAY_ADDRESS": cluster.address, "ENCLAP_TRACEBACK": "1"}
    sweep = tmp_path / "smoke" / "sweep" / "fluency"
    with spot_nodes(cluster, 4):
        pass
    first = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while not list(sweep.glob("runs/*/run_trial_*/checkpoint_*/training.pt")):
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)
    first.kill()
    first.wait()
    second = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert second.returncode == 0, second.stderr[-3000:]
    assert "sweep: fluency goes on where it was stopped" in second.stdout + second.stderr

    best, trials = json.loads((sweep / "best.json").read_text()), pd.read_parquet(sweep / "trials.parquet")
    assert len(trials) == 2
    assert best["schedule"] in [json.loads(schedule) for schedule in trials["schedule"]]
    assert best["value"] == trials["f1"].max()
    (own,) = (trial for _, trial in trials[trials["own"]].iterrows())  # a search that goes on may list it second
    assert own[["training.learning_rate", "training.weight_decay"]].tolist() == [0.001, 0.01]
    assert (sweep / "model" / "model.safetensors").is_file()
    assert pd.read_parquet(sweep / "model" / "history.parquet")["epoch"].tolist() == [1, 2]
    found = load_experiment(sweep / "best.yaml").members["fluency"]
    assert found.training
    assert found.training.learning_rate == best["settings"]["training.learning_rate"]
    assert found.training.weight_decay == best["settings"]["training.weight_decay"]
