"""Running an ablation: what is told before, the table, and what a killed one resumes with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.errors import InputError
from ray_jobs import ablate
from ray_jobs.ablation.arms import load_ablation
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.results.metrics import CAPTION_VALUES, RETRIEVAL_VALUES, EnsembleMetrics
from ray_jobs.run.directory import RunDirectory

from .small_ablation import CLIPS, Jobs, members_made, rows, write


def test_all_files_that_arms_lack_are_named_before_ray_is_started(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = {"kind": "folder", "root": str(tmp_path / "sounds"), "splits": ["train"]}
    wide = {"members": {"captioner-wide": {"checkpoint": str(tmp_path / "wide.ckpt")}}}
    arms = {"plain": None, "own": {"features": {"codec": str(tmp_path / "gone.pth")}}, "enclap": wide}
    file = write(tmp_path, arms=arms, corpora={"more": corpus})
    monkeypatch.setattr(ablate, "connect", lambda: pytest.fail("Ray is started"))
    with pytest.raises(ConfigError, match="3 things cannot be used") as caught:
        ablate.run(file, [])
    corpora, weights, codec = str(caught.value).splitlines()[1:]
    assert f"corpora.more.root: no {tmp_path}/sounds; put it there" in corpora
    assert corpora.endswith("(enclap, own, plain)")
    assert "gone.pth" in codec
    assert codec.endswith("(own)")
    assert f"members.captioner-wide.checkpoint: no {tmp_path}/wide.ckpt; put it there" in weights
    assert not jobs.made


def test_the_table_has_the_values_of_the_runs(jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path)
    ablate.run(file, [])
    ablation = load_ablation(file)
    table = rows(ablation.root)
    assert list(table) == [(metric, arm) for metric in ("cider_d", "map@10") for arm in ("plain", "smoothed")]
    for task, metric in (("captioning", "cider_d"), ("retrieval", "map@10")):
        means = {}
        for arm in ablation.arms:
            found = [EnsembleMetrics.read(RunDirectory(run.experiment).ensemble) for run in ablation.of(arm)]
            values = [getattr(one, task)["ensemble"][metric] for one in found]
            row, means[arm] = table[metric, arm], float(np.mean(values))
            assert row["value"] == pytest.approx(means[arm])
            assert row["seed_std"] == pytest.approx(np.std(values, ddof=1))
            assert row["low"] <= row["value"] <= row["high"]
            assert (row["clips"], row["seeds"], row["commit"]) == (CLIPS, 2, "0123456789ab")
        row = table[metric, "smoothed"]
        assert row["delta"] == pytest.approx(means["smoothed"] - means["plain"])
        assert row["delta_low"] < row["delta"] < row["delta_high"]
        assert [table[metric, "plain"][key] for key in ("delta", "delta_low", "delta_high")] == [0, 0, 0]
    shown = capsys.readouterr().out
    value = table["cider_d", "smoothed"]["value"]
    assert f"{value:.3f}" in shown
    page = (ablation.root / "results" / "index.html").read_text()
    assert f"{value:.3f}" in page
    assert page.count("<svg") == 2
    assert "says nothing" in page or "say nothing" in page


def test_pairs_are_of_equal_clips(jobs: Jobs, tmp_path: Path) -> None:
    """Values are paired by clip and seed, not by the order of the rows: an arm against its own copy differs nowhere."""
    file = write(tmp_path)
    ablate.run(file, [])
    runs = {run.experiment.name: RunDirectory(run.experiment).ensemble for run in load_ablation(file).runs}
    for seed in (0, 1):
        for values in (CAPTION_VALUES, RETRIEVAL_VALUES):
            frame = pd.read_parquet(runs[f"plain-seed{seed}"] / values)
            frame.sample(frac=1, random_state=1).to_parquet(runs[f"smoothed-seed{seed}"] / values)
    deltas = ablate.compare_arms(load_ablation(file))[["delta_low", "delta_high"]].to_numpy()
    assert np.abs(deltas).max() < 1e-12
    frame.query("clip_id != 'clip-3'").to_parquet(runs["smoothed-seed1"] / RETRIEVAL_VALUES)
    with pytest.raises(InputError, match=r"arms smoothed and plain were tested on other clips \(8 and 8\)"):
        ablate.compare_arms(load_ablation(file))


def test_a_second_call_does_nothing(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path)
    ablate.run(file, [])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    made = list(jobs.made)
    monkeypatch.setattr(ablate, "connect", lambda: pytest.fail("nothing is left that needs Ray"))
    ablate.run(file, [])
    assert jobs.made == made
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("at", ["plain-seed1/fluency", "smoothed-seed0/captioner-wide", "smoothed-seed1/combine"])
def test_a_killed_ablation_resumes(jobs: Jobs, tmp_path: Path, at: str) -> None:
    file = write(tmp_path)
    jobs.killed_at = at
    with pytest.raises(KeyboardInterrupt):
        ablate.run(file, [])
    before, jobs.killed_at = list(jobs.made), ""
    assert not (tmp_path / "runs" / "ablations" / "smoothing" / "results").exists()
    ablate.run(file, [])
    repeated = [what for what in jobs.made if jobs.made.count(what) > 1]
    killed, _, _ = at.partition("/")
    assert before
    assert set(repeated) <= {f"{killed}/search"}
    assert len(members_made(jobs)) == len(load_ablation(file).runs[0].experiment.members) * 2 + 2


def test_other_arms_go_on_after_a_failure(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(experiment: Experiment) -> None:
        jobs.train(experiment)
        if experiment.name == "plain-seed1":
            raise ablate.MembersFailedError("1 member is not trained")

    monkeypatch.setattr(ablate.train, "run", fail)
    with pytest.raises(ablate.MembersFailedError, match=r"^plain-seed1: 1 member is not trained$"):
        ablate.run(write(tmp_path), [])
    assert "smoothed-seed1/combine" in jobs.made
