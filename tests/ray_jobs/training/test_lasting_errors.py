"""Errors that a restart would meet again: told at once, and after their cause is gone the same command resumes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from ray_jobs.training.checkpoints import RECORD

from ..conftest import ROOT
from ..small_training import MEMBER, STEPS, write_experiment


def train(experiment: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, on Ray of its own."""
    command = [sys.executable, "-m", "ray_jobs.train", str(experiment)]
    environment = os.environ | {"RAY_ADDRESS": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def kill_at_step(experiment: Path, step: int) -> None:
    """Start the command, and kill it and all of its processes once it has come to a step."""
    environment = os.environ | {"RAY_ADDRESS": ""}
    command = [sys.executable, "-m", "ray_jobs.train", str(experiment)]
    process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints, end = experiment.parent / "small" / "checkpoints", time.monotonic() + 120
    while not list(checkpoints.glob(f"*/epoch_{step // STEPS:05d}_step_{step % STEPS:07d}")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)
    for one in [process, *process.children(recursive=True)]:
        one.kill()
    process.wait()


def events(storage: Path) -> list[str]:
    log = (storage / "small" / "members" / MEMBER / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["event"] for line in log.splitlines()]


def test_a_training_that_diverges_is_not_restarted(tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "runs", 2, {"retries": 2}, clip_norm=1e9)
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["members"][MEMBER]["training"]["learning_rate"] = 1e30
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    ended = train(path)
    assert ended.returncode == 1
    assert f"{MEMBER}: loss nan" in ended.stderr
    assert "lower members.fluency.training.learning_rate" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert events(tmp_path / "runs") == ["started", "failed"], "and neither resumed nor started again"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 600 KB."""
    (disk := tmp_path / "disk").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a disk: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_is_told_once_and_with_room_the_training_resumes(small_disk: Path, tmp_path: Path) -> None:
    saved = {"retries": 2, "checkpoint_steps": 1}
    disks = (small_disk, tmp_path)
    path, calm = (write_experiment(folder / "runs", 3, saved) for folder in disks)
    assert train(calm).returncode == 0
    full = train(path)
    assert full.returncode == 1
    assert "make room, the same command resumes" in full.stderr
    assert "Traceback" not in full.stderr
    assert events(small_disk / "runs").count("started") == 1

    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    resumed = train(path)
    assert resumed.returncode == 0, resumed.stderr
    found, expected = (
        folder / "runs/small/members" / MEMBER / "model.safetensors" for folder in (small_disk, tmp_path)
    )
    assert found.read_bytes() == expected.read_bytes()


@pytest.mark.slow
def test_a_training_resumes_whose_record_of_checkpoints_was_cut(tmp_path: Path) -> None:
    saved = {"checkpoint_steps": 1}
    calm, path = (write_experiment(tmp_path / name, 6, saved) for name in ("calm", "cut"))
    assert train(calm).returncode == 0
    kill_at_step(path, 2 * STEPS + 1)
    (folder,) = (tmp_path / "cut" / "small" / "checkpoints").iterdir()
    (folder / RECORD).write_bytes(b"")  # as a full disk leaves it, or the death of Ray Train's controller
    last = max(folder.glob("epoch_*"))
    (last / "last" / "model.safetensors").write_bytes(b"cut")
    resumed = train(path)
    assert resumed.returncode == 0, resumed.stderr
    assert events(tmp_path / "cut").count("resumed") == 1
    found, expected = (storage.parent / "small" / "members" / MEMBER / "model.safetensors" for storage in (path, calm))
    assert found.read_bytes() == expected.read_bytes()
