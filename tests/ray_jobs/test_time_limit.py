"""What a time limit cut: combined without what is not there, searched in time, going on under a higher limit."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import ray

from ray_jobs import combine, search
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results import time_used
from ray_jobs.results.best import BestSampling
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.results.time_limit import TimeLimitError, cut_lines, without_left_out
from ray_jobs.results.time_used import TimeUsed, counted, time_left
from ray_jobs.run.cuts import Cut
from ray_jobs.run.directory import NotReadyError, RunDirectory, is_done, mark_done
from ray_jobs.status import read_status

from .training.distilled import CAPTIONERS, RETRIEVERS, save_teachers, write_run

STUDENTS = ("student-r", "student-c")
QUICK = (
    "sampling.candidates=2", "beam.beams=2", "sampling.max_tokens=8", "beam.max_tokens=8", "search.trials=3",
    "search.scheduler=none", "search.folds=2", "search.mixtures=false", "search.cpus_per_trial=2", "search.rule=best",
)  # fmt: skip


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def limited(folder: Path, *overrides: str) -> Experiment:
    return load_experiment(folder / "small.yaml", [*QUICK, *overrides])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run whose teachers are trained, and whose students a limit of one hour left out when that was used up."""
    save_teachers(write_run(tmp_path, ("train", "validation", "test")))
    experiment = limited(tmp_path, "time_limit=1h")
    TimeUsed(seconds=3600.0).write(RunDirectory(experiment).root)
    leave_students_out(experiment)
    return tmp_path


def leave_students_out(experiment: Experiment) -> RunDirectory:
    directory = RunDirectory(experiment)
    for name in STUDENTS:
        directory.leave_out(name, "the time was up before it could begin")
    return directory


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_what_is_there_is_searched_and_combined_in_time(folder: Path) -> None:
    experiment = limited(folder, "time_limit=1h")
    search.run(experiment)
    directory = RunDirectory(without_left_out(experiment))
    assert BestSampling.read(directory.search("sampling")).trials == 1, "the paper's setting, in any case"
    assert directory.search_cut() == Cut(1, 3, 3600)
    assert cut_lines(experiment)[-1] == "search: 1 of 3 sampling settings"
    combine.run(experiment)
    metrics = EnsembleMetrics.read(directory.ensemble)
    assert set(metrics.retrieval) == {*RETRIEVERS, "ensemble"}
    assert {system.split("/")[0] for system in metrics.captioning} == {*CAPTIONERS, "ensemble"}

    with pytest.raises(NotReadyError, match=r"student-. does not exist yet; run `enclap train`"):
        search.run(limited(folder, "time_limit=2h"))
    higher = limited(folder, "time_limit=2h")
    leave_students_out(higher)
    TimeUsed(seconds=0.0).write(directory.root)
    tried = pd.read_parquet(directory.search("sampling") / "trials.parquet")
    with pytest.raises(NotReadyError, match="was cut by time_limit=1h, which no longer holds; run `enclap search`"):
        combine.run(higher)
    search.run(higher)
    found = RunDirectory(without_left_out(higher))
    trials = pd.read_parquet(found.search("sampling") / "trials.parquet")
    assert len(trials) == 3
    assert trials["temperature"][0] == tried["temperature"][0]
    assert found.search_cut() is None
    assert not is_done(found.ensemble, found.results_inputs()), "it was made from fewer trials"


def test_members_are_left_out_without_a_change_of_the_others(folder: Path) -> None:
    whole = limited(folder, "time_limit=1h", "token_ensembles={pair: {members: [captioner-a, student-c]}}")
    leave_students_out(whole)
    found = without_left_out(whole)
    assert set(found.members) == {*RETRIEVERS, *CAPTIONERS}
    assert found.token_ensembles == {}
    plain = RunDirectory(limited(folder))
    for name in found.members:
        assert RunDirectory(found).member_inputs(name) == plain.member_inputs(name)
    lines = cut_lines(whole)
    assert "student-r: left out: the time was up before it could begin" in lines
    assert "pair: left out with its captioner" in lines
    assert without_left_out(limited(folder)).members.keys() >= set(STUDENTS), "without a limit nothing is left out"
    assert cut_lines(limited(folder)) == []
    RunDirectory(whole).write_experiment()
    status = read_status(RunDirectory(whole).root)
    assert {member.name for member in status.members if member.state == "left out"} == set(STUDENTS)
    assert status.time == {"limit_s": 3600, "used_s": 3600}


def test_an_ensemble_needs_a_captioner(folder: Path) -> None:
    experiment = limited(folder, "time_limit=1h")
    directory = leave_students_out(experiment)
    for name in CAPTIONERS:
        (directory.member(name) / ".done.json").unlink()
        directory.leave_out(name, "the time was up before it could begin")
    expected = r"found 1h, in which no captioner was trained.*captioner-a: the time was up.*time_limit=2h"
    with pytest.raises(TimeLimitError, match=expected):
        search.run(experiment)


def test_what_reads_a_cut_member_is_made_anew_when_that_goes_on(folder: Path) -> None:
    def directory(*overrides: str) -> RunDirectory:
        return RunDirectory(limited(folder, *overrides))

    plain = directory()
    retriever, captioner = plain.member_inputs("retriever-a"), plain.member_inputs("captioner-a")
    mark_done(plain.member("retriever-a"), retriever, **Cut(1, 2, 3600).details())
    for limit in ("time_limit=1h", "time_limit=30m"):
        assert directory(limit).is_trained("retriever-a")
        assert directory(limit).member_inputs("retriever-a") == retriever, "its checkpoints are its own"
        assert directory(limit).member_inputs("captioner-a") != captioner
        assert directory(limit).members_inputs() != plain.members_inputs()
    for overrides in (["time_limit=2h"], []):
        assert not directory(*overrides).is_trained("retriever-a")
        assert directory(*overrides).member_inputs("captioner-a") == captioner


def test_working_time_is_added_up_over_jobs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory(limited(folder, "time_limit=2h"))
    clock = iter([100.0, 160.0, 1000.0, 1030.0])
    monkeypatch.setattr(time_used.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(time_used, "say", lambda line: None)  # which looks at the clock, too
    with counted(directory):
        pass
    with pytest.raises(KeyboardInterrupt), counted(directory):
        raise KeyboardInterrupt
    assert TimeUsed.read(directory.root).seconds == 3600 + 60 + 30, "what passes between jobs does not count"
    assert time_left(directory) == 7200 - 3690
    assert time_left(RunDirectory(limited(folder, "time_limit=1h"))) == 0
    (directory.root / TimeUsed.FILE).unlink()
    with counted(RunDirectory(limited(folder))):
        pass
    assert not (directory.root / TimeUsed.FILE).exists(), "without a limit"
