"""A real one-node cluster with token authentication, and one run of the smoke experiment submitted to it as a job."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from ray_jobs import cli

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class RayCluster:
    """A running head node."""

    environment: dict[str, str]
    address: str  # for drivers and nodes
    dashboard: str  # for jobs
    scratch: Path  # sessions, with all logs

    def submit(
        self, *entrypoint: str, timeout_s: float, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a job, all of whose processes get `environment`, and follow its log to the end."""
        ray = str(Path(sys.executable).with_name("ray"))
        runtime = ["--runtime-env-json", json.dumps({"env_vars": environment})] if environment else []
        command = [ray, "job", "submit", "--address", self.dashboard, "--working-dir", ".", *runtime, "--", *entrypoint]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            timeout=timeout_s,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """`ray start --head`, as the README says, with a token of its own, on free ports."""
    port, dashboard, client, agent = (free_port() for _ in range(4))
    scratch = tempfile.mkdtemp(prefix="enclap-", dir="/tmp")  # Ray's sockets need a short path
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "HF_TOKEN": f"hf_{secrets.token_hex(16)}",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process for every trainer, for spot nodes
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    environment.pop("RAY_ADDRESS", None)
    head = subprocess.Popen(
        [
            Path(sys.executable).with_name("ray"),
            "start",
            "--head",
            "--block",
            f"--port={port}",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}",
            f"--temp-dir={scratch}",
            f"--dashboard-agent-listen-port={agent}",
            "--disable-usage-stats",
            "--num-cpus=2",
        ],
        env=environment,
        cwd=scratch,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        started = RayCluster(environment, f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", Path(scratch))
        _wait_until_it_takes_jobs(started, head)
        yield started
    finally:
        # Asked to end, a head node takes half a minute over it.
        for process in (*psutil.Process(head.pid).children(recursive=True), head):
            process.kill()
        head.wait(60)
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="session")
def smoke_run(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of experiments/smoke.yaml, made once by `ray job submit ... ray_jobs.pipeline`."""
    storage = tmp_path_factory.mktemp("smoke")
    finished = cluster.submit(*pipeline(storage), timeout_s=900)
    assert finished.returncode == 0, finished.stdout[-6000:]
    return storage / "smoke"


def pipeline(storage: Path) -> list[str]:
    """The main job at debug size, with absolute paths as a job needs them."""
    overrides = [f"storage_path={storage}", f"corpora.soundscapes.root={storage}/audio"]
    return ["python", "-m", "ray_jobs.pipeline", "experiments/smoke.yaml", *overrides]


def command(*arguments: str) -> int:
    """Run `enclap` with some arguments in this process, and return its exit code."""
    with pytest.raises(SystemExit) as done:
        cli.main(list(arguments))
    return int(done.value.code or 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_takes_jobs(cluster: RayCluster, head: subprocess.Popen[bytes], timeout_s: float = 120) -> None:
    """The dashboard answers before the agent that runs jobs is up."""
    end = time.monotonic() + timeout_s
    while (tried := cluster.submit("true", timeout_s=timeout_s)).returncode:
        assert head.poll() is None, f"ray start ended with {head.returncode}"
        assert time.monotonic() < end, tried.stdout
        time.sleep(1)
