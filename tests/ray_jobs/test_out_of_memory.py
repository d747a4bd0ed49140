"""Memory that really runs out: a node whose Ray workers have a limited address space."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from .conftest import RayCluster
from .small_training import MEMBER, write_experiment
from .spot_nodes import PATIENCE_S, SPOT, SpotNodes, spot_nodes, train

LARGE = 1_000_000  # of a feed-forward layer: weights, average, gradients and moments are 1.3 GB
ROOM = 1 << 30  # bytes beyond what a small training takes
# Python runs it at the start of each process; Ray's own processes are left alone.
LIMIT = """
import os, resource, sys
if any(argument.endswith("default_worker.py") for argument in sys.orig_argv):
    most = int(os.environ["ADDRESS_SPACE"])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_does_not_fit_is_told_once_and_with_more_memory_the_training_is_done(
    cluster: RayCluster, tmp_path: Path
) -> None:
    asked = {"custom": SPOT, "retries": 2}
    small, large = (write_experiment(tmp_path / name, 2, asked) for name in ("small", "large"))
    make_large(large)
    with spot_nodes(cluster, 1) as nodes:
        most = address_space_of(nodes, cluster, small)
    (tmp_path / "sitecustomize.py").write_text(LIMIT, encoding="utf-8")
    paths = os.pathsep.join(filter(None, (str(tmp_path), cluster.environment.get("PYTHONPATH"))))
    limit = {"PYTHONPATH": paths, "ADDRESS_SPACE": str(most + ROOM)}
    with spot_nodes(cluster, 1, limit):
        assert train(cluster, large).wait(2 * PATIENCE_S) == 1
    said = large.with_suffix(".log").read_text()
    assert f"MemberOutOfMemoryError: {MEMBER}: " in said, said[-3000:]
    assert "Traceback" not in said
    events = (tmp_path / "large" / "small" / "members" / MEMBER / "log.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["event"] for line in events.splitlines()].count("started") <= 1
    with spot_nodes(cluster, 1):
        assert train(cluster, large).wait(2 * PATIENCE_S) == 0, large.with_suffix(".log").read_text()[-3000:]


def make_large(experiment: Path) -> None:
    raw = yaml.safe_load(experiment.read_text(encoding="utf-8"))
    raw["members"][MEMBER]["text_encoder"]["sizes"]["intermediate_size"] = LARGE
    experiment.write_text(yaml.safe_dump(raw), encoding="utf-8")


def address_space_of(nodes: SpotNodes, cluster: RayCluster, experiment: Path) -> int:
    """Train to the end, and return the largest address space that a worker had meanwhile, in bytes."""
    driver, end, most = train(cluster, experiment), time.monotonic() + 2 * PATIENCE_S, 0
    while driver.poll() is None:
        assert time.monotonic() < end
        for _, worker in nodes.workers():
            with suppress(psutil.Error):  # it has ended
                most = max(most, worker.memory_info().vms)
        time.sleep(0.2)
    assert driver.wait() == 0, experiment.with_suffix(".log").read_text()[-3000:]
    assert most
    return most
