"""Ablations: arms and seeds as experiments, what they share, the table, and what a killed one resumes with."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from models.console import say
from models.errors import InputError
from models.files import write_text
from ray_jobs import ablate
from ray_jobs.ablation.arms import Run, load_ablation
from ray_jobs.ablation.shared import share_candidates, share_features, share_members
from ray_jobs.ablation.side_by_side import runs_that_fit, wait_for, work_on
from ray_jobs.cli import main
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.metrics import CAPTION_VALUES, RETRIEVAL_VALUES, EnsembleMetrics
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, is_done, mark_done
from ray_jobs.run.log import LOG, tell
from ray_jobs.run.recorded import read_experiment

from .conftest import RayCluster
from .example_results import ensemble_metrics

ROOT = Path(__file__).parents[2]
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


# --- arms and seeds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_ablations(file: Path) -> None:
    ablation = load_ablation(file)
    assert ablation.name == file.stem
    assert ablation.seeds == [0, 1, 2]
    assert len(ablation.runs) == 3 * len(ablation.arms)
    differing = [run.experiment.model_dump(exclude={"name"}) for run in ablation.runs if run.seed == 0]
    assert all(one != other for at, one in enumerate(differing) for other in differing[:at])


def test_runs_are_experiments_of_their_own(tmp_path: Path) -> None:
    ablation = load_ablation(write(tmp_path), ["search.trials=9", "seeds=[4,5]", "name=mine"])
    assert [(run.arm, run.seed) for run in ablation.runs] == [
        (arm, seed) for arm in ("plain", "smoothed") for seed in (4, 5)
    ]
    assert ablation.root == tmp_path / "runs" / "ablations" / "mine"
    last = ablation.runs[-1].experiment
    assert (last.name, last.seed, last.search.trials) == ("smoothed-seed5", 5, 9)
    assert RunDirectory(last).root == ablation.root / "smoothed-seed5"
    smoothing = [run.experiment.members["captioner-wide"].label_smoothing for run in ablation.runs]  # type: ignore[union-attr]
    assert smoothing == [0.2, 0.2, 0.3, 0.3]


@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({"seeds": None}, [], r"smoothing.yaml \(extends \S*smoke.yaml\): seeds: missing; expected a list"),
        ({"seeds": [1, 1]}, [], "smoothing.yaml .*: seeds: a seed is named twice"),
        ({"arms": {"plain": None}}, [], "smoothing.yaml .*: arms: Dictionary should have at least 2 items"),
        ({"arms": {"plain": None, "b": {"serach": 1}}}, [], "smoothing.yaml .*: arms.b: unknown key 'serach'"),
        ({"arms": {"plain": None, "b": {"seed": 1}}}, [], "arms.b.seed: found 1, expected none"),
        ({"arms": {"plain": None, "../b": {}}}, [], "smoothing.yaml .*: arms"),
        ({"time_limit": "1h"}, [], "arms.plain.time_limit: expected none"),
        ({"arms": {"plain": None, "b": {"corpora": {"soundscapes": {"splits": {"test": 9}}}}}}, [], "same clips"),
        ({}, ["seed=3"], "'seed=3': an ablation's arms are those of its file"),
        ({}, ["seeds=[]"], "seeds: List should have at least 1 item"),
    ],
)
def test_bad_ablations_are_refused(tmp_path: Path, changes: Any, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_ablation(write(tmp_path, **changes), overrides)


def test_a_command_for_experiments_says_what_runs_an_ablation(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"smoothing\.yaml .*: found an ablation, by its `arms`, .*`enclap ablate` runs"
    ):
        load_experiment(write(tmp_path))


# --- running -------------------------------------------------------------------------------------------------------


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


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    return Jobs(monkeypatch)


def members_made(jobs: Jobs) -> list[str]:
    return [what for what in jobs.made if not what.endswith(("search", "combine", "soundscapes"))]


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


def rows(root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows of the table by metric and arm."""
    found: list[Any] = pd.read_parquet(root / "results" / "table.parquet").to_dict("records")
    return {(row["metric"], row["arm"]): row for row in found}


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


def test_other_arms_go_on_after_a_failure(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(experiment: Experiment) -> None:
        jobs.train(experiment)
        if experiment.name == "plain-seed1":
            raise ablate.MembersFailedError("1 member is not trained")

    monkeypatch.setattr(ablate.train, "run", fail)
    with pytest.raises(ablate.MembersFailedError, match=r"^plain-seed1: 1 member is not trained$"):
        ablate.run(write(tmp_path), [])
    assert "smoothed-seed1/combine" in jobs.made


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


def test_bad_input_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ablate", str(ROOT / "experiments" / "demo.yaml")])
    assert ended.value.code == 2
    assert "demo.yaml: seeds: missing" in capsys.readouterr().err


# --- side by side --------------------------------------------------------------------------------------------------


def test_runs_are_worked_on_side_by_side_once_what_they_share_is_trained(jobs: Jobs, tmp_path: Path) -> None:
    """Two seeds, so two first runs meet, and two others that wait for theirs."""
    file = write(tmp_path)
    runs = load_ablation(file).runs
    at_work, together = Counter[str](), list[set[str]]()
    meeting = threading.Barrier(2, timeout=30)

    def work(one: Run) -> None:
        at_work[one.experiment.name] += 1
        meeting.wait()  # nobody goes on alone
        together.append({name for name, number in at_work.items() if number})
        at_work[one.experiment.name] -= 1
        say(f"{one.arm} is done")

    work_on(runs, work, at_once=4)
    assert wait_for(runs) == [set(), set(), {0}, {1}]
    assert {"plain-seed0", "plain-seed1"} in together
    assert {"smoothed-seed0", "smoothed-seed1"} in together
    assert not any({f"plain-seed{n}", f"smoothed-seed{n}"} <= one for one in together for n in (0, 1))


def test_side_by_side_everything_is_made_as_one_after_the_other(
    jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path)
    ablate.run(file, [], at_once=3)
    names = list(load_ablation(file).runs[0].experiment.members)
    assert sorted(members_made(jobs)) == sorted(
        [f"plain-seed{seed}/{name}" for seed in (0, 1) for name in names]
        + [f"smoothed-seed{seed}/captioner-wide" for seed in (0, 1)]
    )
    assert len(rows(load_ablation(file).root)) == 4
    said = capsys.readouterr().err
    assert "3 runs side by side" in said
    assert "  smoothed-seed0  ablate: fluency is that of plain-seed0" in said


def test_what_a_run_raises_ends_the_others(jobs: Jobs, tmp_path: Path) -> None:
    file = write(tmp_path)
    jobs.killed_at = "plain-seed1/fluency"
    with pytest.raises(KeyboardInterrupt):
        ablate.run(file, [], at_once=2)
    jobs.killed_at = ""
    ablate.run(file, [], at_once=2)
    assert len(rows(load_ablation(file).root)) == 4


def test_as_many_runs_as_the_cluster_trains_at_once(tmp_path: Path) -> None:
    runs = load_ablation(write(tmp_path)).runs
    members = len(runs[0].experiment.members)  # of one CPU each
    assert [runs_that_fit(runs, {"CPU": cpus}) for cpus in (1.0, members, 2.0 * members, 99.0)] == [1, 1, 2, 4]
    assert runs_that_fit(runs, {}) == 1
