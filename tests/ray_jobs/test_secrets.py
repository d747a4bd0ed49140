"""No secret of the environment ends up in what a run leaves behind: experiment.yaml, bundle, report, logs."""

import re
from pathlib import Path

import pytest

from .conftest import RayCluster

pytestmark = pytest.mark.timeout(1200)


def holding(secret: str, directory: Path) -> list[str]:
    """Files under a directory in which a secret stands."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return [str(path.relative_to(directory)) for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.parametrize("variable", ["RAY_AUTH_TOKEN", "HF_TOKEN"])
def test_no_secret_is_left_behind(cluster: RayCluster, smoke_run: Path, variable: str) -> None:
    secret = cluster.environment[variable]
    assert len(secret) > 32
    assert holding("experiment", smoke_run), "the search finds what is there"
    assert not holding(secret, smoke_run)
    logs = cluster.scratch / "session_latest" / "logs"
    said = [path.read_text(errors="replace") for path in logs.glob("job-driver-*.log")]
    assert any(re.search(r"train: .* is done", text) for text in said)
    assert not holding(secret, logs)


def test_a_finished_run_is_nobodys(smoke_run: Path) -> None:
    assert not (smoke_run / ".lock").exists()
    assert not (smoke_run / ".owner.json").exists()
