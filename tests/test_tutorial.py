"""The tutorial's commands, one after another, on a small corpus of one's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from corpora.soundscapes.render import write_captions, write_clip
from corpora.soundscapes.sampling import sample_scenes

from .test_docs import tokens

ROOT = Path(__file__).parents[1]
CLIPS = {"train": 48, "validation": 16, "test": 16}
# The tutorial at the size of the smoke experiment.
SMALLER = {
    "captioner-bpe": "captioner-wide",  # as experiments/smoke.yaml calls them
    "captioner-wordpiece": "captioner-deep",
    "experiments/demo.yaml": "experiments/smoke.yaml",
    "epochs: 60": "epochs: 1",
    "epochs: 40": "epochs: 1",
}


def blocks() -> list[str]:
    """Return what a reader types into a shell."""
    return [token.content for token in tokens(ROOT / "docs" / "tutorial.md") if token.info == "bash"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a directory in which the commands work, with a corpus in WAV files."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    corpus = tmp_path / "my_corpus"
    for split, scenes in sample_scenes(CLIPS, seed=7).items():
        for scene in scenes:
            write_clip(scene, corpus, 16_000)
        write_captions(corpus, split, scenes)
    return tmp_path


@pytest.mark.slow
def test_every_command_works(checkout: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    said = []
    for block in blocks():
        for old, new in {**SMALLER, "8080": port}.items():
            block = block.replace(old, new)
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=checkout, env=environment, timeout=1200, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{block}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
        said.append(ran.stdout)
    captions = pd.read_csv(checkout / "captions.csv")
    assert len(captions) == CLIPS["test"]
    served = said[-2]
    assert '"text"' in served
    assert '"files"' in served
    assert (checkout / "runs" / "mine" / "report" / "clips.html").is_file()
    assert (checkout / "runs" / "mine" / "bundle-fp16.zip").stat().st_size < 0.7 * _size(checkout / "runs/mine/bundle")


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_the_tutorial_goes_from_sounds_to_a_service() -> None:
    """So that the slow test above is not empty where the page changes its form."""
    text = "\n".join(blocks())
    for command in ("doctor", "prepare", "pipeline", "leaderboard", "caption", "index", "retrieve", "serve-local"):
        assert f"enclap {command}" in text
    assert all(old in text for old in SMALLER)
    assert shutil.which("bash")
