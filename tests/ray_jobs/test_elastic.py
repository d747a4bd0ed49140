"""Members whose number of workers may vary, on nodes that come and go."""

import json
import random
import time
from pathlib import Path

import pytest

from .conftest import RayCluster
from .small_training import MEMBER, STEPS, write_experiment
from .spot_nodes import PATIENCE_S, spot_nodes, train


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_member_goes_on_with_the_workers_that_are_left(cluster: RayCluster, tmp_path: Path) -> None:
    asked = {"workers": [1, 2], "custom": {"spot": 0.5}, "checkpoint_steps": 1, "retries": 3}
    experiment = write_experiment(tmp_path / "runs", 8, asked)
    log = tmp_path / "runs" / "small" / "members" / MEMBER / "log.jsonl"
    with spot_nodes(cluster, 2) as nodes:
        driver = train(cluster, experiment)
        checkpoints, end = tmp_path / "runs" / "small" / "checkpoints", time.monotonic() + PATIENCE_S
        while not list(checkpoints.glob(f"*/epoch_*_step_{STEPS - 1:07d}")):
            assert driver.poll() is None, experiment.with_suffix(".log").read_text()[-3000:]
            assert time.monotonic() < end, experiment.with_suffix(".log").read_text()[-3000:]
            time.sleep(0.05)
        node, _ = nodes.worker(random.Random(0))
        nodes.lose(node)
        assert driver.wait(600) == 0, experiment.with_suffix(".log").read_text()[-3000:]
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    workers = [event["workers"] for event in events if event["event"] in ("started", "resumed")]
    assert workers[0] == 2
    assert workers[-1] == 1
    assert events[-1]["event"] == "finished"
