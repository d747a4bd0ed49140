"""Commands that are stopped by a signal end in order, whether Ray is still starting or already at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ...small_bundle import write_bundle, write_sounds

ROOT = Path(__file__).parents[3]
SOUNDS = 40


def assert_sigterm_ends(command: list[str], after: str, pause_s: float) -> None:
    """Run `python -m ray_jobs.<command>`, and stop it some time after it has said something."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    said = ""
    while after not in said:
        line = process.stderr.readline()
        assert line, f"it ended before it was stopped: {said}"
        said += line
    time.sleep(pause_s)
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped by SIGTERM; the same command resumes" in rest
    for unwanted in ("Traceback", "*** SIGTERM", "Fatal Python error", "ray::"):
        assert unwanted not in rest


@pytest.mark.parametrize(("after", "pause_s"), [(f"{SOUNDS} files in", 1.0), (f"{SOUNDS} files to do", 0.5)])
def test_sigterm_ends_a_collection_in_order(after: str, pause_s: float, tmp_path: Path) -> None:
    bundle, sounds = write_bundle(tmp_path / "bundle"), tmp_path / "sounds"
    write_sounds(sounds, SOUNDS)
    options = ["--output", str(tmp_path / "captions"), "--workers", "1"]
    assert_sigterm_ends(["ray_jobs.caption_collection", str(bundle), str(sounds), *options], after, pause_s)


def test_sigterm_ends_a_job_in_order(tmp_path: Path) -> None:
    """It has locked its run before Ray starts."""
    overrides = [f"storage_path={tmp_path}", f"corpora.soundscapes.root={tmp_path}/audio"]
    assert_sigterm_ends(["ray_jobs.prepare", "experiments/smoke.yaml", *overrides], "prepare: rendering", 0.2)
