"""Training goes on after the death of a worker and of the driver, and ends with the weights of an undisturbed run."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from ray_jobs.results.member import SPEED

from ..conftest import ROOT, RayCluster

MEMBER = "retriever-bge"


def prepare(smoke_run: Path, storage: Path) -> list[str]:
    """The smoke experiment with one member alone, over the same features; returns the command that trains it."""
    raw = yaml.safe_load((ROOT / "experiments" / "smoke.yaml").read_text(encoding="utf-8"))
    member = raw["members"][MEMBER] | {"resources": {"checkpoint_steps": 1}}
    raw |= {"members": {MEMBER: member}, "storage_path": str(storage)}
    raw["corpora"]["soundscapes"]["root"] = str(smoke_run.parent / "audio")
    (storage / "smoke").mkdir(parents=True)
    shutil.copytree(smoke_run / "features", storage / "smoke" / "features")
    (storage / "one.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return ["python", "-m", "ray_jobs.train", str(storage / "one.yaml")]


def kill_when(progress: Path, epoch: int, find: Callable[[psutil.Process], bool], cluster: RayCluster) -> None:
    """Kill this cluster's processes that `find` finds, in the middle of the epoch after `epoch`."""
    end = time.monotonic() + 240
    while True:
        assert time.monotonic() < end, f"{progress} never came to epoch {epoch}"
        at = json.loads(progress.read_text(encoding="utf-8")) if progress.is_file() else {"epoch": 0, "step": 0}
        if at["epoch"] >= epoch and at["step"]:
            break
        time.sleep(0.02)
    found = [process for process in psutil.process_iter() if _is_of(process, cluster) and find(process)]
    assert found
    for process in found:
        process.kill()


def _is_of(process: psutil.Process, cluster: RayCluster) -> bool:
    try:
        return process.environ().get("RAY_AUTH_TOKEN") == cluster.environment["RAY_AUTH_TOKEN"]
    except psutil.Error:
        return False


def trained(run: Path) -> tuple[bytes, pd.DataFrame]:
    member = run / "members" / MEMBER
    history = pd.read_parquet(member / "history.parquet").drop(columns=list(SPEED))
    return (member / "model.safetensors").read_bytes(), history


@pytest.mark.ci
@pytest.mark.slow
def test_weights_after_faults_are_those_of_an_undisturbed_run(
    cluster: RayCluster, smoke_run: Path, tmp_path: Path
) -> None:
    """A worker dies within the first epoch, and the driver within the second."""
    command = prepare(smoke_run, tmp_path)
    progress = tmp_path / "smoke" / "members" / MEMBER / "progress.json"
    jobs: list[subprocess.CompletedProcess[str]] = []
    job = threading.Thread(target=lambda: jobs.append(cluster.submit(*command, timeout_s=300)))
    job.start()
    kill_when(progress, 0, lambda process: "RayTrainWorker" in process.name() + "".join(process.cmdline()), cluster)
    kill_when(progress, 1, lambda process: "ray_jobs.train" in process.cmdline(), cluster)
    job.join()
    assert jobs[0].returncode != 0
    assert not (progress.parent / "model.safetensors").exists()
    assert list((tmp_path / "smoke" / "checkpoints").glob(f"{MEMBER}-*/epoch_*")), "there is something to go on from"
    resumed = cluster.submit(*command, timeout_s=300)
    assert resumed.returncode == 0, resumed.stdout[-3000:]

    weights, history = trained(smoke_run)
    weights_again, history_again = trained(tmp_path / "smoke")
    pd.testing.assert_frame_equal(history, history_again, check_exact=True)
    assert weights == weights_again
