"""A search that is killed goes on, and never needs the test split."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from .conftest import ROOT, RayCluster

TRIALS = 2  # as in smoke.yaml, whose search of retrieval weights holds here, too


@pytest.mark.timeout(900)
@pytest.mark.ci
@pytest.mark.slow
def test_a_killed_search_goes_on_without_the_test_split(cluster: RayCluster, smoke_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "smoke"
    shutil.copytree(smoke_run / "members", run / "members")
    shutil.copytree(smoke_run / "features", run / "features", ignore=shutil.ignore_patterns("test", "train"))
    shutil.copytree(smoke_run / "search" / "retrieval", run / "search" / "retrieval")
    command = [
        sys.executable,
        "-u",
        "-m",
        "ray_jobs.search",
        "experiments/smoke.yaml",
        f"storage_path={tmp_path}",
    ]
    environment = cluster.environment | {"RAY_ADDRESS": cluster.address, "ENCLAP_TRACEBACK": "1"}
    first = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert first.stdout
    said = ""
    for line in first.stdout:
        said += line
        if "sampling: trial 1:" in line:
            break
    first.kill()
    first.wait()
    assert "sampling: trial 1:" in said, said[-3000:]
    drawn = {path: path.stat().st_mtime_ns for path in run.glob("search/candidates/*/*.parquet")}
    assert drawn

    second = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert second.returncode == 0, second.stderr[-3000:]
    said = second.stdout + second.stderr
    assert "sampling goes on where it was stopped" in said
    assert "search: retrieval is done already" in said
    trials = pd.read_parquet(run / "search" / "sampling" / "trials.parquet")
    assert len(trials) == TRIALS
    assert ((trials["temperature"] == 0.5) & (trials["top_p"] == 0.95)).sum() == 1
    # what was drawn before the kill was not drawn again (the chosen setting's files get further metrics' columns)
    chosen = {path for path in drawn if "value/rouge_l" in pd.read_parquet(path).columns}
    assert all(path.stat().st_mtime_ns == at for path, at in drawn.items() if path not in chosen)
