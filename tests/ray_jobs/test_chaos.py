"""Whatever dies, and however often: training ends with the weights of an undisturbed run.

ENCLAP_CHAOS_KILLS=20 kills more often than the test does by default, ENCLAP_CHAOS_SEED others.
"""

import json
import os
import random
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from ray_jobs.results.member import SPEED

from .conftest import RayCluster
from .small_training import MEMBER, STEPS, write_experiment
from .spot_nodes import PATIENCE_S, SPOT, SpotNodes, spot_nodes, train

KINDS = ("worker", "driver", "node")
KILLS = int(os.environ.get("ENCLAP_CHAOS_KILLS", len(KINDS)))
SEED = int(os.environ.get("ENCLAP_CHAOS_SEED", 0))
HEAD = {"node:__internal_head__": 0.001}  # a resource that Ray gives the head alone


def wait_for_step(experiment: Path, step: int) -> int:
    """Wait until training came to `step`, counted over all epochs; returns where it is then."""
    member = experiment.parent / "small" / "members" / MEMBER
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert not (member / "metrics.json").exists(), "training ended before the kills did"
        if (member / "progress.json").is_file():
            at = json.loads((member / "progress.json").read_text(encoding="utf-8"))
            assert at.get("steps", STEPS) == STEPS
            if (now := at.get("epoch", 0) * STEPS + at.get("step", 0)) >= step:
                return now
        time.sleep(0.02)
    raise AssertionError(f"training never came to step {step}: {experiment.with_suffix('.log').read_text()[-3000:]}")


@pytest.mark.slow
def test_weights_after_all_kinds_of_losses(cluster: RayCluster, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    kills = (rng.sample(KINDS, len(KINDS)) + rng.choices(KINDS, k=KILLS))[:KILLS]
    often = {"checkpoint_steps": 1, "retries": KILLS, "hang_timeout_s": PATIENCE_S}
    calm = write_experiment(tmp_path / "calm", KILLS + 1, often | {"cpus_per_worker": 0.5, "custom": HEAD})
    wild = write_experiment(tmp_path / "wild", KILLS + 1, often | {"custom": SPOT})
    with spot_nodes(cluster, 2) as nodes:
        undisturbed, step = train(cluster, calm), 0
        driver = train(cluster, wild)
        for kind in kills:
            step = wait_for_step(wild, step + rng.randint(1, STEPS // 2))
            driver = lose(kind, driver, wild, nodes, rng)
        for process, experiment in ((driver, wild), (undisturbed, calm)):
            assert process.wait(PATIENCE_S) == 0, experiment.with_suffix(".log").read_text()[-3000:]
    for read in (weights, history):
        assert read(wild) == read(calm)


def lose(
    kind: str, driver: subprocess.Popen[bytes], experiment: Path, nodes: SpotNodes, rng: random.Random
) -> subprocess.Popen[bytes]:
    """Kill something of a training, put another node or driver in its place, and return the driver."""
    if kind == "driver":
        driver.kill()
        driver.wait()
        return train(nodes.cluster, experiment)
    node, worker = nodes.worker(rng)
    if kind == "worker":
        worker.kill()
    else:
        nodes.lose(node)
        nodes.add()
    return driver


def weights(experiment: Path) -> bytes:
    return (experiment.parent / "small" / "members" / MEMBER / "model.safetensors").read_bytes()


def history(experiment: Path) -> list[dict[str, float]]:
    frame = pd.read_parquet(experiment.parent / "small" / "members" / MEMBER / "history.parquet")
    rows = frame.drop(columns=list(SPEED)).to_dict("records")
    return [{str(column): value for column, value in row.items()} for row in rows]
