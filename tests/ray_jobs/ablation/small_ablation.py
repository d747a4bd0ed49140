"""Ablations of two arms and two seeds, and stand-ins for the jobs that they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ray_jobs import ablate
from ray_jobs.experiment.config import Experiment
from ray_jobs.results.metrics import CAPTION_VALUES, RETRIEVAL_VALUES
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, is_done, mark_done

from ..example_results import ensemble_metrics

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "experiments" / "ablations").glob("*.yaml"))
CLIPS, CAPTIONS = 8, 2
TAUGHT = {"members": {"captioner-wide": {"label_smoothing": 0.3}}}


def write(folder: Path, **changes: Any) -> Path:
    """Write an ablation of two arms that share all members but one."""
    raw = {
        "extends": str(ROOT / "experiments" / "smoke.yaml"),
        "storage_path": str(folder / "runs"),
        "seeds": [0, 1],
        "arms": {"plain": None, "smoothed": TAUGHT},
    }
    (path := folder / "smoothing.yaml").write_text(yaml.safe_dump(raw | changes))
    return path


class Jobs:
    """Jobs that write the files of the real ones at once, and count what they make; one may be killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self.killed_at = ""
        for name in ("prepare", "train", "search", "combine"):
            monkeypatch.setattr(getattr(ablate, name), "run", getattr(self, name))
        monkeypatch.setattr(ablate, "connect", lambda: None)
        monkeypatch.setattr(ablate.ray, "cluster_resources", lambda: {"CPU": 1.0})  # for one run at a time

    def note(self, what: str) -> None:
        if what == self.killed_at:
            raise KeyboardInterrupt
        self.made.append(what)

    def prepare(self, experiment: Experiment) -> None:
        directory = RunDirectory(experiment)
        for corpus in experiment.corpora:
            if not is_done(directory.features(corpus), directory.features_inputs()):
                self.note(f"{experiment.name}/{corpus}")
                for split in ("train", "test"):
                    directory.features(corpus, split).mkdir(parents=True, exist_ok=True)
                    (directory.features(corpus, split) / "00000.arrow").write_text(experiment.name)
                storage.push(directory.features(corpus))
                mark_done(directory.features(corpus), directory.features_inputs(), shards={"00000.arrow": "x"})

    def train(self, experiment: Experiment) -> None:
        directory = RunDirectory(experiment)
        for name in experiment.members:
            if not directory.is_trained(name):
                self.note(f"{experiment.name}/{name}")
                directory.member(name).mkdir(parents=True, exist_ok=True)
                (directory.member(name) / "model.safetensors").write_text(experiment.name)
                made = directory.features("soundscapes", "train") / "embeddings" / name
                made.mkdir(parents=True, exist_ok=True)
                (made / "00000.arrow").write_text(experiment.name)
                storage.push(made)
                storage.push(directory.member(name))
                mark_done(directory.member(name), directory.member_inputs(name))

    def search(self, experiment: Experiment) -> None:
        self.note(f"{experiment.name}/search")
        directory = RunDirectory(experiment)
        drawn = directory.search("candidates") / directory.candidates_inputs(experiment.sampling) / "clips.parquet"
        if not drawn.exists():
            drawn.parent.mkdir(parents=True, exist_ok=True)
            drawn.write_text(experiment.name)

    def combine(self, experiment: Experiment) -> None:
        self.note(f"{experiment.name}/combine")
        directory, rng = RunDirectory(experiment), np.random.default_rng(len(self.made))
        directory.ensemble.mkdir(parents=True, exist_ok=True)
        clips = rng.permutation([f"clip-{clip}" for clip in range(CLIPS)])  # in any order
        captions = pd.DataFrame({"system": "ensemble", "clip_id": clips, "cider_d": rng.random(CLIPS)})
        queries = pd.DataFrame({
            "system": "ensemble",
            "clip_id": np.repeat(clips, CAPTIONS),
            "caption": [f"{clip} {n}" for clip in clips for n in range(CAPTIONS)],
            "map@10": rng.random(CLIPS * CAPTIONS),
        })  # fmt: skip
        others = [frame.assign(system="other") for frame in (captions, queries)]
        pd.concat([captions, others[0]]).to_parquet(directory.ensemble / CAPTION_VALUES)
        pd.concat([queries, others[1]]).to_parquet(directory.ensemble / RETRIEVAL_VALUES)
        found = ensemble_metrics(experiment, clips=CLIPS)
        found.captioning["ensemble"]["cider_d"] = float(captions["cider_d"].mean())
        found.retrieval["ensemble"]["map@10"] = float(queries["map@10"].mean())
        found.write(directory.ensemble)
        storage.push(directory.ensemble)
        mark_done(directory.ensemble, directory.results_inputs())


def members_made(jobs: Jobs) -> list[str]:
    return [what for what in jobs.made if not what.endswith(("search", "combine", "soundscapes"))]


def rows(root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows of the table by metric and arm."""
    found: list[Any] = pd.read_parquet(root / "results" / "table.parquet").to_dict("records")
    return {(row["metric"], row["arm"]): row for row in found}
