"""A refit learns from validation clips, too, as long as the originals were at their best, and is exported for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import yaml

from models.ensemble.bundle import Ensemble
from models.ensemble.manifest import read_manifest
from models.files import sha256_of
from ray_jobs import export, refit
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.member import MemberMetrics
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.run.directory import NotReadyError, RunDirectory, mark_done
from ray_jobs.status import read_status
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.refit import Refit, kept_members
from ray_jobs.training.tasks.base import make_task

from .example_results import best_reranking, best_retrieval, best_sampling, ensemble_metrics
from .training.distilled import CAPTIONERS, CLIPS, RETRIEVERS, raw_experiment, save_teachers, write_run

EPOCHS, BEST, RATE, BATCH = 3, 2, 1e-3, 4
NAMES = {"retriever-a": "retriever-a_full", "captioner-a": "captioner-a_full"}
CODEC = {"codec": "dac-soundscapes-16khz", "codebooks": 3, "log_mel": {"n_mels": 32}}


@pytest.fixture
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def found_best(experiment: Experiment, name: str) -> None:
    """Let a member that `save_teachers` wrote have been best in its second epoch of three."""
    path = RunDirectory(experiment).member(name)
    best = {"epoch": BEST, "map@10": 0.375, "caption_loss": 1.25, "train_loss": 9.0}
    MemberMetrics.read(path).model_copy(update={"epochs": EPOCHS, "best": best}).write(path)


@pytest.fixture
def combined(tmp_path: Path) -> Experiment:
    """A run of one retriever and its captioner that `combine` has been through; no split but two can be read."""
    raw = raw_experiment(tmp_path)["members"]
    training = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": RATE, "patience": 1, "keep_epochs": 2}
    experiment = write_run(
        tmp_path,
        members={name: {**raw[name], "training": training} for name in NAMES},
        features=CODEC,
        refit=True,
    )
    directory = RunDirectory(experiment)
    save_teachers(experiment, list(NAMES))
    for name in NAMES:
        found_best(experiment, name)
    test = directory.features("sounds", "test") / "00000.arrow"
    test.parent.mkdir()
    test.write_text("whoever reads this fails")
    weights = {"decoder": 0.25, "retriever-a": 0.75, "likelihood/captioner-a": 0.5, "rank/retriever-a": 0.25}
    best_sampling(experiment).write(directory.search("sampling"))
    chosen = best_reranking(experiment, weights=weights, captioners=["captioner-a", "captioner-a/beam"])
    chosen.write(directory.search("reranking"))
    best_retrieval(experiment).write(directory.search("retrieval"))
    ensemble_metrics(experiment).write(directory.ensemble)
    mark_done(directory.ensemble, directory.search_inputs())
    return experiment


def test_a_run_is_refitted_exported_and_resumed(
    combined: Experiment, local_ray: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "write_self_test", lambda *_: None)  # made-up codes are not those of the codec
    directory = RunDirectory(combined)
    with pytest.raises(NotReadyError, match="captioner-a_full does not exist yet; run `enclap refit`"):
        export.run(combined)
    refit.run(combined)
    steps = 2 * CLIPS // BATCH
    for original, full in NAMES.items():
        metrics, history = MemberMetrics.read(directory.member(full)), _history(directory.member(full))
        assert history["epoch"].tolist() == [1, BEST]
        # the rate falls over the epochs of the original, whose steps are those of both splits
        expected = [RATE * 0.5 * (1 + np.cos(np.pi * at * steps / (EPOCHS * steps))) for at in (1, BEST)]
        np.testing.assert_allclose(history["learning_rate"], expected)
        assert not {"map@10", "caption_loss"} & set(history), "there is no validation"
        assert (metrics.inherited_from, metrics.epochs, metrics.kept_epochs) == (original, BEST, [BEST])
        assert (metrics.best["map@10"], metrics.best["caption_loss"]) == (0.375, 1.25)
        assert metrics.best["train_loss"] == history["train_loss"].iloc[-1]
    before = {full: sha256_of(directory.member(full) / "model.safetensors") for full in NAMES.values()}
    written = {full: (directory.member(full) / "model.safetensors").stat().st_mtime_ns for full in NAMES.values()}
    capsys.readouterr()
    refit.run(combined)
    assert "0 members to train, 2 done already" in capsys.readouterr().err
    assert {n: (directory.member(n) / "model.safetensors").stat().st_mtime_ns for n in before} == written

    export.run(combined)
    manifest, values = read_manifest(directory.bundle), EnsembleMetrics.read(directory.bundle)
    assert manifest.reranking.weights == {
        "decoder": 0.25,
        "retriever-a_full": 0.75,
        "likelihood/captioner-a_full": 0.5,
        "rank/retriever-a_full": 0.25,
    }
    assert manifest.reranking.captioners == ["captioner-a_full", "captioner-a_full/beam"]
    assert manifest.retrieval.weights == {"retriever-a_full": 1.0}
    assert manifest.captioners == {"captioner-a_full": "retriever-a_full"}
    assert manifest.provenance["refit"] == values.inherited_by == NAMES
    assert manifest.provenance["members"]["captioner-a_full"]["inherited_from"] == "captioner-a"
    for full, checksum in before.items():
        assert sha256_of(directory.bundle / "members" / full / "model.safetensors") == checksum
    ensemble = Ensemble.load(directory.bundle)
    assert [*ensemble.captioners] == ["captioner-a_full"]
    assert [*ensemble.references] == ["retriever-a_full"]
    capsys.readouterr()
    export.run(combined)
    assert "export: done already" in capsys.readouterr().err
    directory.write_experiment()
    status = read_status(directory.root)
    shown = {member.name: member for member in status.members}["captioner-a_full"]
    assert (shown.state, shown.inherited_from) == ("done", "captioner-a")
    assert shown.note == "values inherited from captioner-a"
    assert {part.name: part.state for part in status.results} == {
        "combine": "done", "refit": "done", "export": "done", "report": "waiting",
    }  # fmt: skip


def _history(member: Path) -> pd.DataFrame:
    return pd.read_parquet(member / "history.parquet")


def test_members_of_a_refit_read_each_other_and_the_validation_split(tmp_path: Path) -> None:
    experiment = write_run(tmp_path, refit=True)
    save_teachers(experiment, [*RETRIEVERS, *CAPTIONERS, "student-r", "student-c"])
    again, directory = Refit.read(experiment), RunDirectory(experiment)
    assert again.names == {name: f"{name}_full" for name in experiment.members}
    for name, full in again.names.items():
        before, job = (MemberJob.of(e, RunDirectory(e), n) for e, n in ((experiment, name), (again, full)))
        assert job.train == [*before.train, directory.features("sounds", "validation")]
        assert (job.seed, job.validation, job.member.kind) == (before.seed, [], before.kind)
        assert [*job.edges] == [again.names[edge] for edge in before.edges]
        assert [*job.teachers] == [again.names[teacher] for teacher in before.teachers]
        assert job.training.last_epoch == 1
        assert directory.member_inputs(name) != RunDirectory(again).member_inputs(full)
    teacher = MemberJob.of(again, RunDirectory(again), "retriever-a_full")
    assert teacher.captioned == teacher.embedded == teacher.train, "its student reads them of both splits"


def test_weights_follow_their_members_and_scores_keep_their_names(tmp_path: Path) -> None:
    """A detector is a member called `fluency` in every published experiment, and its score is called so, too."""
    experiment = write_run(tmp_path, refit=True)
    again = Refit.of(experiment, dict.fromkeys(experiment.members, 1))
    again.names["fluency"] = "fluency_full"
    again.members["fluency_full"] = again.members["captioner-a_full"]
    scores = {
        "retriever-a": "retriever-a_full",
        "fluency": "fluency",
        "decoder": "decoder",
        "joint/mean": "joint/mean",
        "likelihood/captioner-a": "likelihood/captioner-a_full",
        "origin/beam": "origin/beam",
        "origin/captioner-a": "origin/captioner-a_full",
        "consensus/ngram": "consensus/ngram",
        "consensus/retriever-a": "consensus/retriever-a_full",
        "rank/retriever-a": "rank/retriever-a_full",
    }
    assert {name: again.renamed_score(name) for name in scores} == scores
    columns = {
        "captioner-a/likelihood": "captioner-a_full/likelihood",
        "retriever-a/captions": "retriever-a_full/captions",
    }
    assert {name: again.renamed(name) for name in columns} == columns


def test_a_corpus_has_its_share_whatever_number_of_its_splits_is_read(tmp_path: Path) -> None:
    raw = raw_experiment(tmp_path)
    raw["members"]["retriever-a"]["corpora"] = {"sounds": 1.0}
    experiment = write_run(tmp_path, refit=True, members={"retriever-a": raw["members"]["retriever-a"]})
    save_teachers(experiment, ["retriever-a"])
    again = Refit.read(experiment)
    task = make_task(MemberJob.of(again, RunDirectory(again), "retriever-a_full"))
    rows = task.epoch_clips(np.random.default_rng(0))  # type: ignore[attr-defined]
    assert sorted(rows) == list(range(2 * CLIPS))


def test_what_gains_nothing_is_kept(tmp_path: Path) -> None:
    raw: dict[str, Any] = raw_experiment(tmp_path)
    raw["corpora"]["other"] = raw["corpora"]["sounds"]
    members = raw["members"]
    members["retriever-a"]["corpora"] = ["other"]
    members["retriever-b"]["corpora"] = {"other": 1.0, "sounds": 0.0}
    members["captioner-a"]["corpora"] = ["other"]
    members["captioner-more"] = {**members["captioner-a"], "audio_embedding": "student-r"}
    members["fluency"] = {"kind": "fluency-detector", "checkpoint": "echecker.ckpt", "text_encoder": "bert"}
    path = tmp_path / "more.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    experiment = load_experiment(path)
    kept = kept_members(experiment)
    assert kept == {
        **dict.fromkeys(("retriever-a", "retriever-b", "captioner-a"), "learns nothing of sounds"),
        "fluency": "published weights, which are not trained",
    }
    again = Refit.of(experiment, {name: 1 for name in experiment.members if name not in kept})
    assert again.members["captioner-more_full"].retrievers() == ["student-r_full"]
    assert again.training_splits("captioner-more_full") == [("other", "train")], "its retriever has changed, no more"
    assert again.members["captioner-b_full"].retrievers() == [*RETRIEVERS]
    directory = RunDirectory(experiment)
    for name in kept:
        assert RunDirectory(again).member_inputs(name) == directory.member_inputs(name), "so it is not trained again"


def test_it_is_refused_where_it_would_be_of_no_use(tmp_path: Path) -> None:
    experiment = write_run(tmp_path)
    with pytest.raises(ConfigError, match="refit: found false, expected true"):
        refit.run(experiment)
    with pytest.raises(NotReadyError, match="run `enclap combine`"):
        refit.run(experiment.model_copy(update={"refit": True}))
    raw = raw_experiment(tmp_path)
    raw["members"]["captioner-a_full"] = raw["members"]["captioner-a"]
    with pytest.raises(ConfigError, match="captioner-a_full: refit gives 'captioner-a' this name"):
        write_run(tmp_path, members=raw["members"], refit=True)


def test_a_refit_beside_a_time_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refit: found true beside a time_limit"):
        write_run(tmp_path, refit=True, time_limit="8h")
