"""The main job, once, at debug size: every path of the run directory's contract, and the bundle in use."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from models.commands.verify import run as verify
from models.fluency.damage import DAMAGES
from models.selection.rules import AUTO
from models.submission import check_captions, one_line
from ray_jobs.cli import main
from ray_jobs.experiment.loading import load_experiment

from .conftest import ROOT, RayCluster, pipeline

pytestmark = pytest.mark.timeout(1200)
MEMBERS = ["retriever-bge", "retriever-bert", "retriever-roberta", "captioner-wide", "captioner-deep", "fluency"]
SYSTEMS = ["captioner-wide/beam", "captioner-deep/beam", "captioner-wide/rerank", "captioner-deep/rerank", "ensemble"]


def metrics(smoke_run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((smoke_run / "ensemble" / "metrics.json").read_text())
    return found


def test_experiment_says_what_the_run_was(smoke_run: Path) -> None:
    record = yaml.safe_load((smoke_run / "experiment.yaml").read_text())
    assert list(record["experiment"]["members"]) == MEMBERS
    assert set(record["provenance"]) == {"commit", "seed", "packages"}
    assert record["provenance"]["packages"]["ray"] != "absent"


def test_features(smoke_run: Path) -> None:
    for split, clips in {"train": 48, "validation": 16, "test": 16}.items():
        shards = sorted((smoke_run / "features" / "soundscapes" / split).glob("*.arrow"))
        table = pd.concat(pd.read_feather(shard) for shard in shards)
        assert len(table) == clips
        assert {"clip_id", "codes", "log_mel", "captions", "duration_s"} <= set(table.columns)
        first = table.iloc[0]
        assert len(first.captions) == 5
        assert len(first.codes) == int(np.ceil(first.duration_s * 25))
        assert len(first.log_mel[0]) == 64
        assert Path(first.path).is_file()
    assert pq.read_table(smoke_run / "features" / "soundscapes" / "quarantine.parquet").num_rows == 0


@pytest.mark.parametrize("name", MEMBERS)
def test_members(smoke_run: Path, name: str) -> None:
    directory = smoke_run / "members" / name
    for file in ("model.safetensors", "config.json", "metrics.json", "history.parquet"):
        assert (directory / file).is_file()
    assert list(directory.glob("*/tokenizer.json"))
    record = json.loads((directory / "metrics.json").read_text())
    history = pd.read_parquet(directory / "history.parquet")
    assert record["member"] == name
    wanted = load_experiment(ROOT / "experiments" / "smoke.yaml").members[name].epochs
    assert len(history) == record["epochs"] == wanted
    assert np.isfinite(history["train_loss"]).all()
    # the others' loss depends on the batch more than on so few steps: training/test_tasks.py has that they learn
    if name.startswith("captioner"):
        assert history["train_loss"].is_monotonic_decreasing
    monitored = history[record["chosen_by"]]
    best = monitored.idxmin() if record["chosen_by"] == "caption_loss" else monitored.idxmax()
    assert record["best"] == pytest.approx(history.loc[best].to_dict())


def test_searches(smoke_run: Path) -> None:
    for what in ("sampling", "reranking", "retrieval"):
        best = json.loads((smoke_run / "search" / what / "best.json").read_text())
        trials = pd.read_parquet(smoke_run / "search" / what / "trials.parquet")
        assert best["split"] == "validation"
        assert len(trials) >= 2
        value = best["map@10" if what == "retrieval" else "value"]
        assert best["optimism"] == pytest.approx(value - best["cross_validated"])
        assert best["rule"] in (["one-standard-error"] if what == "sampling" else AUTO)
        if what == "sampling":
            assert np.isclose(trials["cider_d"], best["value"]).any()
            assert len(pd.read_parquet(smoke_run / "search" / what / "surface.parquet")) == best["trials_on_all_clips"]
            paper = trials[(trials["temperature"] - 0.5).abs() < 1e-9]
            assert len(paper) == 1, "the experiment's own setting is among the trials"
        else:
            assert sum(map(abs, best["weights"].values())) == pytest.approx(1), "that of the length may be negative"


def test_validation_candidates_and_surface(smoke_run: Path) -> None:
    directory = smoke_run / "search" / "reranking"
    candidates = pd.read_parquet(directory / "candidates.parquet")
    assert candidates["clip_id"].nunique() == 16
    assert not candidates.duplicated(["clip_id", "caption"]).any()
    scores = ["decoder_score", "fluency_error", *(f"encoder_score/{n}" for n in MEMBERS[:3])]
    values = [f"value/{metric}" for metric in ("cider_d", "rouge_l", "bleu_1", "bleu_4")]
    assert np.isfinite(candidates[[*scores, *values, "tokens"]].to_numpy(float)).all()
    best = json.loads((directory / "best.json").read_text())
    assert best["filtered"]["cider_d"] == pytest.approx(best["value"])
    surface = pd.read_parquet(directory / "surface.parquet")
    paper = surface[np.isclose(surface["encoder_weight"], 0.7) & (surface["fluency_threshold"] == 0.9)]
    assert len(paper) == 1
    assert surface["tied_with_best"].iloc[int(surface["cider_d"].argmax())]


def test_what_members_add(smoke_run: Path) -> None:
    found = metrics(smoke_run)
    rows = {(row["task"], row["without"]): row for row in found["leave_one_out"]}
    assert set(rows) == {("captioning", name) for name in MEMBERS} | {("retrieval", name) for name in MEMBERS[:3]}
    for (task, _), row in rows.items():
        metric = "cider_d" if task == "captioning" else "map@10"
        assert row["value_without"] + row["adds"] == pytest.approx(found[task]["ensemble"][metric], abs=1e-3)
    for task, starts in {"captioning": MEMBERS[3:5], "retrieval": MEMBERS[:3]}.items():
        steps = found["forward_selection"][task]
        assert steps[0]["added"][0] in starts
        assert [step["parameters"] for step in steps] == sorted(step["parameters"] for step in steps)


def test_metrics(smoke_run: Path) -> None:
    found = metrics(smoke_run)
    assert {"corpus", "split", "clips", "seed", "commit"} <= set(found)
    assert (found["split"], found["clips"]) == ("test", 16)
    assert set(found["captioning"]) == set(SYSTEMS)
    assert set(found["retrieval"]) == {*MEMBERS[:3], "ensemble"}
    for values in found["retrieval"].values():
        assert 0 <= values["r@1"] <= values["map@10"] <= values["r@10"] <= 1
    compared = {(c["metric"], c["b"]) for c in found["comparisons"]}
    assert {("map@10", name) for name in MEMBERS[:3]} <= compared
    assert {("cider_d", f"{name}/beam") for name in MEMBERS[3:5]} <= compared
    for comparison in found["comparisons"]:
        low, high = comparison["ci95"]
        assert low <= comparison["delta"] <= high


def test_values_of_clips(smoke_run: Path) -> None:
    found = metrics(smoke_run)
    assert found["captioning_details"]["library"] == f"aac-metrics {found['packages']['aac-metrics']}"
    clips = pd.read_parquet(smoke_run / "ensemble" / "caption_values.parquet")
    assert clips.groupby("system", sort=False)["clip_id"].nunique().to_dict() == dict.fromkeys(SYSTEMS, 16)
    assert not clips.duplicated(["system", "clip_id"]).any()
    for metric in ("cider_d", "rouge_l"):
        for system, mean in clips.groupby("system")[metric].mean().items():
            assert mean == pytest.approx(found["captioning"][system][metric], abs=1e-6)


def test_values_of_queries(smoke_run: Path) -> None:
    found = metrics(smoke_run)["retrieval"]
    queries = pd.read_parquet(smoke_run / "ensemble" / "retrieval_values.parquet")
    assert queries.groupby("system")["clip_id"].nunique().to_dict() == dict.fromkeys(found, 16)
    for system, of_system in queries.groupby("system"):
        assert of_system["map@10"].mean() == pytest.approx(found[system]["map@10"])
        assert (of_system["rank"] <= 1).mean() == pytest.approx(found[system]["r@1"])


def test_the_fluency_filter_is_no_proof_of_itself(
    smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = metrics(smoke_run)
    without, ensemble = found["captioning_details"]["unfiltered"], found["captioning"]["ensemble"]
    assert without.keys() == ensemble.keys()
    best = json.loads((smoke_run / "search" / "reranking" / "best.json").read_text())
    assert best["filtered"].keys() == best["unfiltered"].keys()
    assert {"sbert_sim", "fense"} <= best["filtered"].keys() | best["absent"].keys()
    assert set(found["fluency_detector"]["damage"]) == set(DAMAGES)
    assert found["fluency_detector"]["captions"] == 16 * 5
    table, output = tmp_path / "captions.csv", tmp_path / "found.json"
    table.write_text("file_name,caption_1,caption_2\na.wav,A dog barks.,\nb.wav,Rain falls and wind blows.,Thunder\n")
    with pytest.raises(SystemExit) as done:
        main(["fluency", str(smoke_run / "bundle"), str(table), "--output", str(output)])
    assert done.value.code in (0, None)
    assert "the built-in synthetic corpus alone" in capsys.readouterr().err
    own, other = json.loads(output.read_text())["captions"].values()
    assert own == found["fluency_detector"]
    assert (other["captions"], other["damage"]["remove_conjunction"]["captions"]) == (3, 1)
    table.write_text("file_name,text\na.wav,A dog barks.\n")
    with pytest.raises(SystemExit) as refused:
        main(["fluency", str(smoke_run / "bundle"), str(table)])
    assert refused.value.code == 2
    assert "found columns file_name, text; expected caption, caption_predicted" in capsys.readouterr().err


def test_submissions(smoke_run: Path) -> None:
    names = {f"test-{number:05d}.flac" for number in range(16)}
    with (smoke_run / "ensemble" / "captions.csv").open(newline="", encoding="utf-8") as file:
        captions = list(csv.DictReader(file))
    assert list(captions[0]) == ["file_name", "caption_predicted"]
    assert {row["file_name"] for row in captions} == names
    assert all(row["caption_predicted"].strip() for row in captions)
    check_captions(smoke_run / "ensemble" / "captions.csv", names)
    with (smoke_run / "ensemble" / "retrieval.csv").open(newline="", encoding="utf-8") as file:
        header, *ranking = list(csv.reader(file))
    assert header == ["caption", *(f"fname_{rank}" for rank in range(1, 11))]
    assert len(ranking) == 16 * 5
    assert all(len(set(row[1:])) == 10 and set(row[1:]) <= names for row in ranking)


def test_candidates_agree_with_the_captions(smoke_run: Path) -> None:
    candidates = pd.read_parquet(smoke_run / "ensemble" / "candidates.parquet")
    chosen = candidates[candidates["chosen"]].set_index("clip_id")["caption"]
    captions = pd.read_csv(smoke_run / "ensemble" / "captions.csv")
    assert len(chosen) == 16
    for file_name, caption in zip(captions["file_name"], captions["caption_predicted"], strict=True):
        assert one_line(chosen[Path(file_name).stem]) == caption
    scores = candidates[["decoder_score", "fluency_error", *(f"encoder_score/{n}" for n in MEMBERS[:3])]]
    assert np.isfinite(scores.to_numpy()).all()
    assert not candidates.duplicated(["clip_id", "caption"]).any()


def test_report_is_one_page(smoke_run: Path) -> None:
    page = (smoke_run / "report" / "index.html").read_text(encoding="utf-8")
    assert "<audio" in page
    for system in SYSTEMS:
        assert system in page


BUNDLE_CHECK = """
import json, socket, sys
def refuse(*_): raise OSError("network")
socket.socket.connect = refuse
from models.ensemble import Ensemble
ensemble = Ensemble.load(sys.argv[1])
paths = sys.argv[2:]
together = ensemble.caption(paths)
alone = [ensemble.caption([path])[0] for path in paths]
assert [c.text for c in together] == [c.text for c in alone], "batch and single differ"
assert all(abs(a.score - b.score) < 1e-3 for a, b in zip(together, alone))
for query in ("rain", "  "):
    try:
        ensemble.retrieve(query)
    except ValueError as error:
        assert "nothing is indexed" in str(error) or "blank" in str(error)
    else:
        raise AssertionError("nothing to search in, and no error")
ensemble.index(paths); ensemble.index(paths[:1])
found = ensemble.retrieve("a dog barks", top_k=10)
assert sorted(one.path for one in found) == sorted(paths)
assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)
assert "ray" not in sys.modules, "the bundle needs Ray"
print(json.dumps([c.text for c in together]))
"""


def test_bundle_works_moved_offline_and_without_ray(smoke_run: Path, tmp_path: Path) -> None:
    """And says of the test clips what combine said."""
    moved = tmp_path / "elsewhere"
    moved.symlink_to(smoke_run / "bundle")
    audio = sorted((smoke_run.parent / "audio" / "test").glob("*.flac"))[:4]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", BUNDLE_CHECK, str(moved), *map(str, audio)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    captions = pd.read_csv(smoke_run / "ensemble" / "captions.csv").set_index("file_name")["caption_predicted"]
    # JSON: an undertrained captioner says control characters, too, and some of them end a line.
    assert [one_line(text) for text in json.loads(finished.stdout)] == [captions[path.name] for path in audio]


def test_bundle_passes_its_own_check(smoke_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(smoke_run / "bundle")
    assert "and the same caption" in capsys.readouterr().err


def test_the_installed_command_lists_the_jobs() -> None:
    command = [str(Path(sys.executable).with_name("enclap")), "--help"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    jobs = ("prepare", "train", "sweep", "search", "combine", "export", "report", "pipeline")
    for job in (*jobs, "caption", "index", "retrieve", "evaluate", "status"):
        assert f" {job} " in said


def test_commands_on_the_bundle(smoke_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def enclap(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """As the command, without a Python and its imports for each."""
        code: int | str | None = 0
        capfd.readouterr()
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        return subprocess.CompletedProcess(arguments, int(code or 0), *capfd.readouterr())

    bundle, audio = smoke_run / "bundle", smoke_run.parent / "audio"
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    captions = tmp_path / "captions.jsonl"
    done = enclap("caption", bundle, audio / "test" / "test-00000.flac", tmp_path, "--output", captions)
    assert done.returncode == 0, done.stderr
    assert "broken.wav" in done.stderr
    line = json.loads(captions.read_text())
    assert line["text"] == line["candidates"][0]["text"] or line["candidates"][0]["fluency_error"] > 0.9
    submission = tmp_path / "submission.csv"
    done = enclap("caption", bundle, audio / "test" / "test-00000.flac", tmp_path, "--submission", submission)
    assert (done.returncode, submission.exists()) == (2, False)
    assert "1 of 2 files have no row, 'broken.wav' among them" in done.stderr
    done = enclap("caption", bundle, audio / "test" / "test-00000.flac", "--submission", submission)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(submission)["caption_predicted"].tolist() == [one_line(line["text"])]
    done = enclap("retrieve", bundle, "rain", audio / "test", "--top-k", "3")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) == 3
    values, relevance = tmp_path / "values.json", tmp_path / "relevance.csv"
    relevance.write_text("query,audio_filenames\na dog barks,\"['test-00000.flac', 'test-00001.flac']\"\n")
    done = enclap("evaluate", bundle, audio, "test", "--output", values, "--relevance", relevance, "--ap-over", "all")
    assert done.returncode == 0, done.stderr
    assert "retrieval relevance, average precision over all" in done.stdout
    evaluated, combined = json.loads(values.read_text()), metrics(smoke_run)
    assert evaluated["retrieval"]["map@10"] == pytest.approx(combined["retrieval"]["ensemble"]["map@10"], abs=1e-3)
    assert 0 < evaluated["retrieval_relevance"]["map@10"] <= evaluated["retrieval_relevance"]["map@16"]
    assert evaluated["ap_over"] == "all"
    clips = pd.read_parquet(tmp_path / "values.parquet")
    assert clips["cider_d"].mean() == pytest.approx(evaluated["captioning"]["cider_d"])
    assert clips["clip_id"].is_unique
    assert evaluated["captioning"]["cider_d"] == pytest.approx(combined["captioning"]["ensemble"]["cider_d"], abs=1e-3)


def test_submitted_again_nothing_is_redone(smoke_run: Path, cluster: RayCluster) -> None:
    before = {path: path.stat().st_mtime_ns for path in smoke_run.rglob("*") if path.is_file()}
    finished = cluster.submit(*pipeline(smoke_run.parent), timeout_s=300)
    assert finished.returncode == 0, finished.stdout[-3000:]
    assert "Captioning, soundscapes test, 16 clips" in finished.stdout
    after = {path: path.stat().st_mtime_ns for path in smoke_run.rglob("*") if path.is_file()}
    assert after == before


def test_missing_embeddings_are_made_again_without_training(smoke_run: Path, cluster: RayCluster) -> None:
    """Captioners, search and combine read what the retriever's workers have made, and nobody embeds a split again."""
    features, member = smoke_run / "features" / "soundscapes", smoke_run / "members" / "retriever-bge"
    (kept,) = (features / "train" / "embeddings" / "retriever-bge").iterdir()
    before = pd.read_feather(kept), (member / "model.safetensors").stat().st_mtime_ns
    assert before[0]["clip_id"].is_unique
    assert len(before[0]) == 48
    assert {path.parent.parent.parent.name for path in features.glob("*/embeddings/*/*.arrow")} == {
        "train",
        "validation",
        "test",
    }
    kept.unlink()
    arguments = pipeline(smoke_run.parent)
    arguments[2] = "ray_jobs.train"
    finished = cluster.submit(*arguments, timeout_s=300)
    assert finished.returncode == 0, finished.stdout
    assert "1 member to train, 5 done already" in finished.stdout
    assert "retriever-bge  audio embeddings of 48 clips" in finished.stdout
    assert (member / "model.safetensors").stat().st_mtime_ns == before[1]
    after = pd.read_feather(kept)
    assert after["clip_id"].equals(before[0]["clip_id"])
    assert np.allclose(np.stack(after["audio_embedding"].tolist()), np.stack(before[0]["audio_embedding"].tolist()))


def test_a_failing_member_fails_alone_and_is_named(smoke_run: Path, cluster: RayCluster) -> None:
    """Only captioner-deep is changed, and diverges; the run keeps what it has."""
    weights = smoke_run / "members" / "captioner-deep" / "model.safetensors"
    before = weights.read_bytes()
    deep = "members.captioner-deep"
    diverge = [f"{deep}.training.learning_rate=1e30", f"{deep}.training.warmup_steps=0", f"{deep}.resources.retries=0"]
    arguments = [*pipeline(smoke_run.parent), *diverge]
    arguments[2] = "ray_jobs.train"
    finished = cluster.submit(*arguments, timeout_s=300)
    assert finished.returncode != 0
    assert "1 member to train, 5 done already" in finished.stdout
    assert "1 member is not trained:\n  captioner-deep: " in finished.stdout
    assert "lower members.captioner-deep.training.learning_rate" in finished.stdout
    assert weights.read_bytes() == before
