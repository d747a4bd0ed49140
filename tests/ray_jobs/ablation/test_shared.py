"""What arms share is made once, and taken over."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from models.files import write_text
from ray_jobs import ablate
from ray_jobs.ablation.arms import load_ablation
from ray_jobs.ablation.shared import share_candidates, share_features, share_members
from ray_jobs.ablation.side_by_side import wait_for
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.run.directory import RunDirectory, is_done, mark_done
from ray_jobs.run.log import LOG, tell
from ray_jobs.run.recorded import read_experiment

from ..conftest import RayCluster
from .small_ablation import TAUGHT, Jobs, members_made, rows, write


def test_what_arms_share_is_made_once(jobs: Jobs, tmp_path: Path) -> None:
    file = write(tmp_path)
    ablate.run(file, [])
    ablation = load_ablation(file)
    assert [what for what in jobs.made if what.endswith("soundscapes")] == ["plain-seed0/soundscapes"]
    names = list(ablation.runs[0].experiment.members)
    assert members_made(jobs) == [
        *(f"plain-seed{seed}/{name}" for seed in (0, 1) for name in names),
        "smoothed-seed0/captioner-wide",
        "smoothed-seed1/captioner-wide",
    ]
    plain, _, smoothed, _ = (RunDirectory(run.experiment) for run in ablation.runs)
    for name in names:
        made, taken = (run.member(name) / "model.safetensors" for run in (plain, smoothed))
        assert (made.stat().st_ino == taken.stat().st_ino) == (name != "captioner-wide")
        embeddings = smoothed.features("soundscapes", "train") / "embeddings" / name / "00000.arrow"
        assert embeddings.read_text() == ("smoothed-seed0" if name == "captioner-wide" else "plain-seed0")
        own = plain.features("soundscapes", "train") / "embeddings" / name / "00000.arrow"
        assert own.read_text() == "plain-seed0", "no run changes another's files"
    recorded = read_experiment(str(smoothed.root))
    assert recorded.members["captioner-wide"].label_smoothing == 0.3  # type: ignore[union-attr]


def test_only_captioners_are_trained_for_other_codes(jobs: Jobs, tmp_path: Path) -> None:
    file = write(tmp_path, seeds=[0], arms={"four": None, "two": {"features": {"codebooks": 2}}})
    ablate.run(file, [])
    four, two = load_ablation(file).runs
    assert [made for made in members_made(jobs) if made.startswith("two")] == [
        f"two-seed0/{name}" for name, member in two.experiment.members.items() if member.kind == "captioner"
    ]
    assert wait_for([four, two]) == [set(), {0}]
    weights = RunDirectory(two.experiment).member("fluency") / "model.safetensors"
    assert RunDirectory(two.experiment).is_trained("fluency")
    assert weights.read_text() == "four-seed0"


def test_candidates_of_equal_members_are_drawn_once(jobs: Jobs, tmp_path: Path) -> None:
    more = {"sampling": {"candidates": 7}}
    file = write(
        tmp_path, seeds=[0], arms={"plain": None, "prior": {"search": {"rule": "prior"}}, "more": more} | {"t": TAUGHT}
    )
    ablate.run(file, [])
    drawn = {
        run.arm: [path.read_text() for path in RunDirectory(run.experiment).search("candidates").glob("*/*.parquet")]
        for run in load_ablation(file).runs
    }
    own = {arm: f"{arm}-seed0" in names for arm, names in drawn.items()}
    assert own["plain"] != own["prior"], "one of them draws"
    assert own["more"], "other settings draw anew"
    assert drawn["t"] == ["t-seed0"], "another member proposes other candidates"


def test_shards_of_an_equal_corpus_are_taken_over_beside_other_corpora(tmp_path: Path) -> None:
    weak = {"kind": "soundscapes", "root": "data/weak", "splits": {"train": 8}}
    arms = {arm: {"corpora": {"weak": {**weak, "seed": seed}}} for arm, seed in (("one", 1), ("other", 2))}
    one, other = (RunDirectory(run.experiment) for run in load_ablation(write(tmp_path, seeds=[0], arms=arms)).runs)
    shards = {name: Path(name, "train", "00000.arrow") for name in ("soundscapes", "weak")}
    for name, shard in shards.items():
        write_text(one.features(name).parent / shard, "shard")
        mark_done(one.features(name), one.features_inputs())
    share_features(other, [one])
    assert {name: (other.features(name).parent / shard).exists() for name, shard in shards.items()} == {
        "soundscapes": True,
        "weak": False,
    }
    assert not is_done(other.features("soundscapes"), other.features_inputs()), "prepare looks at each shard"


def test_candidates_of_a_setting_come_from_all_runs_that_drew_some(tmp_path: Path) -> None:
    arms = {arm: {"search": {"rule": rule}} for arm, rule in (("a", "prior"), ("b", "best"), ("c", "bagged"))}
    runs = [RunDirectory(run.experiment) for run in load_ablation(write(tmp_path, seeds=[0], arms=arms)).runs]
    for run, clips in zip(runs, (["0-33"], ["0-33", "33-100"], ["100-160"]), strict=True):
        for name in clips:
            write_text(run.search("candidates") / "setting" / f"clips-{name}.parquet", run.root.name)
    share_candidates(runs[2], runs[:2])
    found = {path.name: path.read_text() for path in (runs[2].search("candidates") / "setting").glob("*")}
    assert found == {
        "clips-0-33.parquet": "a-seed0",
        "clips-33-100.parquet": "b-seed0",
        "clips-100-160.parquet": "c-seed0",
    }


def test_a_log_that_goes_on_does_not_change_that_of_the_run_it_is_from(tmp_path: Path) -> None:
    file = write(tmp_path)
    first, second = (RunDirectory(run.experiment) for run in load_ablation(file).runs if run.seed == 0)
    tell(first.member("fluency"), "done")
    write_text(first.member("fluency") / "model.safetensors", "weights")
    mark_done(first.member("fluency"), first.member_inputs("fluency"))
    assert share_members(second, [first]) == ["fluency"]
    before = (first.member("fluency") / LOG).read_text()
    tell(second.member("fluency"), "started")
    assert (first.member("fluency") / LOG).read_text() == before
    assert (second.member("fluency") / LOG).read_text().startswith(before)


def test_what_arms_share_is_copied_in_an_object_store(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path / "cache"))
    file = write(tmp_path, storage_path=f"file://{tmp_path}/store", seeds=[0])
    jobs.killed_at = "smoothed-seed0/captioner-wide"
    with pytest.raises(KeyboardInterrupt):
        ablate.run(file, [])
    jobs.killed_at = ""
    shutil.rmtree(tmp_path / "cache")  # another node goes on
    ablate.run(file, [])
    assert members_made(jobs) == [
        *(f"plain-seed0/{name}" for name in load_ablation(file).runs[0].experiment.members),
        "smoothed-seed0/captioner-wide",
    ]
    store = tmp_path / "store" / "ablations" / "smoothing"
    for name, maker in {"fluency": "plain-seed0", "captioner-wide": "smoothed-seed0"}.items():
        assert (store / "smoothed-seed0" / "members" / name / "model.safetensors").read_text() == maker
        embeddings = store / "smoothed-seed0" / "features" / "soundscapes" / "train" / "embeddings" / name
        assert (embeddings / "00000.arrow").read_text() == maker
    assert len(pd.read_parquet(store / "results" / "table.parquet")) == 4
    assert (store / "results" / "index.html").is_file()


def test_a_take_over_that_was_cut_is_done_again(jobs: Jobs, tmp_path: Path) -> None:
    file = write(tmp_path)
    ablate.run(file, [])
    directory = RunDirectory(load_ablation(file).runs[-1].experiment)
    for path in (directory.ensemble, directory.member("fluency")):
        (path / ".done.json").unlink()
    (directory.member("fluency") / "model.safetensors").unlink()
    (directory.member("fluency") / "stray.txt").write_text("of an earlier attempt")
    made = len(jobs.made)
    ablate.run(file, [])
    assert jobs.made[made:] == ["smoothed-seed1/search", "smoothed-seed1/combine"]
    assert [path.name for path in directory.member("fluency").iterdir() if path.name[0] != "."] == ["model.safetensors"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_jobs_take_what_they_share_as_their_own(smoke_run: Path, cluster: RayCluster, tmp_path: Path) -> None:
    """The real jobs: the first arm is there, the second has one other member, and nothing else is trained."""
    audio = {"corpora": {"soundscapes": {"root": str(smoke_run.parent / "audio")}}}
    deep = {"members": {"captioner-deep": {"training": {"epochs": 1}}}}
    file = write(tmp_path, seeds=[0], arms={"plain": None, "short": deep}, **audio)
    plain, short = (RunDirectory(run.experiment) for run in load_ablation(file).runs)
    shutil.copytree(smoke_run, plain.root)
    command = ("python", "-m", "ray_jobs.ablate", str(file))
    finished = cluster.submit(*command, timeout_s=600)
    assert finished.returncode == 0, finished.stdout[-6000:]
    assert "1 run to do, 1 done already" in finished.stdout
    assert "1 member to train, 5 done already" in finished.stdout
    assert "0 corpora to prepare, 1 done already" in finished.stdout
    for name in plain.experiment.members:
        weights = [run.member(name) / "model.safetensors" for run in (plain, short)]
        assert weights[0].samefile(weights[1]) == (name != "captioner-deep")
    assert len(pd.read_parquet(short.member("captioner-deep") / "history.parquet")) == 1
    for (metric, arm), row in rows(load_ablation(file).root).items():
        metrics = EnsembleMetrics.read({"plain": plain, "short": short}[arm].ensemble)
        assert row["value"] == pytest.approx(getattr(metrics, row["task"])["ensemble"][metric])
        assert row["clips"] == 16
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    again = cluster.submit(*command, timeout_s=300)
    assert again.returncode == 0, again.stdout
    assert "0 runs to do, 2 done already" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before
