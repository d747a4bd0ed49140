"""reproduce: the same experiment again gives the same values, and what differs is named."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import pipeline, reproduce
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features.dataset import DATA
from ray_jobs.reporting.reproduction import MISSING, Difference, compare_runs
from ray_jobs.results.member import MemberMetrics
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.run.directory import NotReadyError, RunDirectory, mark_done
from ray_jobs.run.recorded import read_experiment

from .conftest import RayCluster
from .example_results import best_reranking, best_retrieval, best_sampling, ensemble_metrics

ROOT = Path(__file__).parents[2]


def finished(tmp_path: Path, *overrides: str) -> RunDirectory:
    """A run that went as far as `combine`."""
    file = ROOT / "experiments" / "smoke.yaml"
    directory = RunDirectory(load_experiment(file, [f"storage_path={tmp_path}", *overrides]))
    experiment = directory.experiment
    directory.write_experiment()
    mark_done(directory.features("soundscapes"), directory.features_inputs(), **{DATA: {"train": "a", "test": "b"}})
    for name, member in experiment.members.items():
        MemberMetrics(
            member=name, kind=member.kind, split="validation", chosen_by="map@10", epochs=2, kept_epochs=[2],
            best={"epoch": 2, "map@10": 0.25, "seconds": 3.0}, parameters=9, seconds=3.0, seed=0, commit="",
            device="cpu",
        ).write(directory.member(name))  # fmt: skip
    best_sampling(experiment).write(directory.search("sampling"))
    best_reranking(experiment).write(directory.search("reranking"))
    best_retrieval(experiment).write(directory.search("retrieval"))
    ensemble_metrics(experiment).write(directory.ensemble)
    mark_done(directory.ensemble, directory.results_inputs())
    return directory


@pytest.fixture
def first(tmp_path: Path) -> RunDirectory:
    return finished(tmp_path)


@pytest.fixture
def second(first: RunDirectory) -> RunDirectory:
    shutil.copytree(first.root, first.root.with_name("smoke-again"))
    return RunDirectory(read_experiment(str(first.root.with_name("smoke-again"))))


def test_equal_runs_are_equal_whatever_they_took(first: RunDirectory, second: RunDirectory) -> None:
    bge = MemberMetrics.read(second.member("retriever-bge"))
    slower = bge.model_copy(update={"seconds": 9.0, "best": bge.best | {"seconds": 9.0}})
    slower.write(second.member("retriever-bge"))
    took = {"generating_s": 1.5, "trial_s": 2.5, "elapsed_s": 3.5, "overhead": 0.5}
    best_sampling(second.experiment, **took).write(second.search("sampling"))
    found = compare_runs(first.experiment, second.experiment)
    assert not found.values
    assert not found.surroundings
    assert found.compared > 100


def test_every_value_that_differs_is_named_with_both_in_the_order_of_the_work(
    first: RunDirectory, second: RunDirectory
) -> None:
    metrics = EnsembleMetrics.read(second.ensemble)
    before = metrics.captioning["ensemble"]["cider_d"]
    metrics.captioning["ensemble"]["cider_d"] = before + 1e-12
    metrics.captioning["ensemble"]["meteor"] = 0.5
    metrics.write(second.ensemble)
    best = best_sampling(second.experiment, temperature=0.123)
    best.write(second.search("sampling"))
    data = {"train": "a", "test": "other"}
    mark_done(second.features("soundscapes"), second.features_inputs(), **{DATA: data})
    assert compare_runs(first.experiment, second.experiment).values == [
        Difference("data.soundscapes.test", "b", "other"),
        Difference("search.sampling.temperature", first.experiment.sampling.temperature, 0.123),
        Difference("ensemble.captioning.ensemble.cider_d", before, before + 1e-12),
        Difference("ensemble.captioning.ensemble.meteor", MISSING, 0.5),
    ]


def test_devices_commits_and_packages_are_told_apart_from_values(first: RunDirectory, second: RunDirectory) -> None:
    name = "retriever-bge"
    MemberMetrics.read(second.member(name)).model_copy(update={"device": "NVIDIA H100", "commit": "c0ffee"}).write(
        second.member(name)
    )
    found = compare_runs(first.experiment, second.experiment)
    assert not found.values
    assert {one.name for one in found.surroundings} == {f"members.{name}.device", f"members.{name}.commit"}


@pytest.mark.parametrize("same", [True, False])
def test_a_repetition_says_whether_all_is_equal(
    same: bool, first: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def repeat(experiment: Experiment) -> None:
        shutil.copytree(first.root, RunDirectory(experiment).root)
        changes: dict[str, Any] = {} if same else {"clips": 11}
        ensemble_metrics(experiment, **changes).write(RunDirectory(experiment).ensemble)

    monkeypatch.setattr(pipeline, "run", repeat)
    repeated = reproduce.repetition(str(first.root))
    assert repeated.name == "smoke-again"
    assert reproduce.run(repeated, str(first.root)) is same
    text = capsys.readouterr().out
    assert ("are the same in smoke-again" in text) is same
    assert ("ensemble.clips" in text) is not same


def test_what_cannot_be_repeated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; expected a run directory"):
        reproduce.repetition(str(tmp_path / "nowhere"))
    limited = finished(tmp_path, "time_limit=1h", "name=limited")
    with pytest.raises(ConfigError, match="found a time_limit"):
        reproduce.repetition(str(limited.root))
    started = finished(tmp_path, "name=started")
    shutil.rmtree(started.ensemble)
    with pytest.raises(NotReadyError, match="enclap combine"):
        reproduce.repetition(str(started.root))


@pytest.mark.slow
def test_the_smoke_experiment_again_gives_the_same_bytes(cluster: RayCluster, smoke_run: Path) -> None:
    finished = cluster.submit("python", "-m", "ray_jobs.reproduce", str(smoke_run), timeout_s=900)
    assert finished.returncode == 0, finished.stdout[-6000:]
    assert "are the same in smoke-again" in finished.stdout
    metrics = Path("ensemble") / EnsembleMetrics.FILE
    assert (smoke_run / metrics).read_bytes() == (smoke_run.with_name("smoke-again") / metrics).read_bytes()
