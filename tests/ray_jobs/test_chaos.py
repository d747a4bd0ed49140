"""Whatever dies, and however often: training ends with the weights of an undisturbed run.

ENCLAP_CHAOS_KILLS kills more or less often than the tests do by default, ENCLAP_CHAOS_SEED others.
"""

import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ray_jobs.results.member import SPEED
from ray_jobs.status import read_status

from .conftest import ROOT, RayCluster
from .small_training import MEMBER, STEPS, write_experiment
from .spot_nodes import PATIENCE_S, SPOT, SpotNodes, spot_nodes, start, train

KINDS = ("worker", "driver", "node")
KILLS = int(os.environ.get("ENCLAP_CHAOS_KILLS", len(KINDS)))
KILLS_OF_DEMO = int(os.environ.get("ENCLAP_CHAOS_KILLS", 20))
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


@pytest.mark.ci
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


def weights(experiment: Path, member: str = f"small/members/{MEMBER}") -> bytes:
    return (experiment.parent / member / "model.safetensors").read_bytes()


def history(experiment: Path, member: str = f"small/members/{MEMBER}") -> list[dict[str, float]]:
    frame = pd.read_parquet(experiment.parent / member / "history.parquet")
    rows = frame.drop(columns=list(SPEED)).to_dict("records")
    return [{str(column): value for column, value in row.items()} for row in rows]


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_all_members_of_the_demo_after_many_losses(cluster: RayCluster, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    calm, wild = (write_demo(tmp_path / name) for name in ("calm", "wild"))
    assert start(cluster, "prepare", calm).wait(900) == 0, calm.with_suffix(".log").read_text()[-3000:]
    shutil.copytree(calm.parent / "demo", wild.parent / "demo")
    with spot_nodes(cluster, 2) as nodes:
        assert train(cluster, calm).wait(1800) == 0, calm.with_suffix(".log").read_text()[-3000:]
        driver = train(cluster, wild)
        for share in sorted(rng.uniform(0, 0.95) for _ in range(KILLS_OF_DEMO)):
            wait_for_share(wild, share)
            driver = lose(rng.choice(KINDS), driver, wild, nodes, rng)
        assert driver.wait(1800) == 0, wild.with_suffix(".log").read_text()[-3000:]
    for member in sorted((calm.parent / "demo" / "members").iterdir()):
        for read in (weights, history):
            assert read(wild, f"demo/members/{member.name}") == read(calm, f"demo/members/{member.name}"), member.name


def write_demo(folder: Path) -> Path:
    """The demo in a new folder that is its storage, too; its members save every few steps and run on spot nodes."""
    asked = {"checkpoint_steps": 4, "retries": KILLS_OF_DEMO, "hang_timeout_s": PATIENCE_S, "custom": SPOT}
    names = yaml.safe_load((ROOT / "experiments" / "demo.yaml").read_text(encoding="utf-8"))["members"]
    raw = {
        "extends": str(ROOT / "experiments" / "demo.yaml"),
        "storage_path": str(folder),
        "corpora": {"soundscapes": {"root": str(folder.parent / "sounds")}},
        "members": {name: {"resources": asked} for name in names},
    }
    folder.mkdir()
    (path := folder / "demo.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def wait_for_share(experiment: Path, share: float) -> None:
    """Wait until a share of all members' epochs is done."""
    end = time.monotonic() + 4 * PATIENCE_S
    while time.monotonic() < end:
        members = read_status(str(experiment.parent / "demo")).members
        assert any(member.state != "done" for member in members), "training ended before the kills did"
        done = sum((one.epoch or 0) + (one.step or 0) / (one.steps or 1) for one in members)
        if done >= share * sum(one.epochs for one in members):
            return
        time.sleep(0.5)
    raise AssertionError(f"training never came to {share:.0%}: {experiment.with_suffix('.log').read_text()[-3000:]}")
