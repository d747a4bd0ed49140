"""Nodes that join a cluster and are lost, and drivers beside its head."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .conftest import ROOT, RayCluster, free_port

PATIENCE_S = 180
SPOT = {"spot": 1}  # a resource that each node has one of
ONE_CPU = ("--num-cpus=1", '--resources={"spot": 1}')


@dataclass
class SpotNodes:
    """Nodes that join the cluster, hold one worker each, and go away."""

    cluster: RayCluster
    environment: Mapping[str, str] = field(default_factory=dict)  # beside that of the cluster
    nodes: list[psutil.Popen] = field(default_factory=list)

    def add(self) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--address", self.cluster.address,
                   *ONE_CPU, f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats"]  # fmt: skip
        node = psutil.Popen(
            command,
            cwd=self.cluster.scratch,
            env=self.cluster.environment | dict(self.environment),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.nodes.append(node)
        # Two nodes that start at the same moment on one machine take the same socket.
        for line in node.stdout:
            if "Ray runtime started" in line:
                return
        raise AssertionError(f"a node ended with {node.wait()}")

    def worker(self, rng: random.Random) -> tuple[psutil.Popen, psutil.Process]:
        """Wait for a Ray Train worker; return the node that it is on, and it."""
        end = time.monotonic() + PATIENCE_S
        while not (workers := self.workers()):
            assert time.monotonic() < end, "no worker was started"
            time.sleep(0.1)
        return rng.choice(workers)

    def workers(self) -> list[tuple[psutil.Popen, psutil.Process]]:
        """The Ray Train workers that there are, each with its node."""
        found = []
        for node in self.nodes:
            for process in _descendants(node):
                try:
                    if "RayTrainWorker" in process.name() + "".join(process.cmdline()):
                        found.append((node, process))
                except psutil.Error:
                    continue
        return found

    def lose(self, node: psutil.Popen) -> None:
        """Kill all of a node's processes together, as when a machine loses its power."""
        for process in [*_descendants(node), node]:
            process.kill()
        node.wait()
        self.nodes.remove(node)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


@contextmanager
def spot_nodes(cluster: RayCluster, number: int, environment: Mapping[str, str] | None = None) -> Iterator[SpotNodes]:
    found = SpotNodes(cluster, environment or {})
    try:
        for _ in range(number):
            found.add()
        yield found
    finally:
        for node in list(found.nodes):
            found.lose(node)


def train(cluster: RayCluster, experiment: Path) -> subprocess.Popen[bytes]:
    return start(cluster, "train", experiment)


def start(cluster: RayCluster, job: str, experiment: Path) -> subprocess.Popen[bytes]:
    """A driver beside the head; what it says is appended to a log beside the experiment's file."""
    environment = cluster.environment | {"RAY_ADDRESS": cluster.address, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", f"ray_jobs.{job}", str(experiment)]
    with experiment.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
