"""How the time of a limit is shared out among members: with made-up steps and a clock that stands still."""

from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from models.console import spell_exactly
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.duration import spell_limit
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.time_used import TimeUsed
from ray_jobs.run.cuts import Cut
from ray_jobs.run.directory import RunDirectory, is_done, mark_done
from ray_jobs.training.deadline import Deadline
from ray_jobs.training.plan import by_critical_path, steps_after
from ray_jobs.training.shares import TrainingTime, planned_steps

from ..conftest import ROOT

LARGE = {"CPU": 16.0}
STEPS = {"retriever-bge": 10.0, "captioner-wide": 30.0, "retriever-bert": 20.0, "captioner-deep": 20.0, "fluency": 5.0}


def smoke(*overrides: str) -> Experiment:
    return load_experiment(ROOT / "experiments" / "smoke.yaml", list(overrides))


@pytest.mark.parametrize(
    ("given", "seconds", "spelled"),
    [
        ("8h", 28800, "8h"),
        ("90m", 5400, "90m"),
        ("1h30m", 5400, "90m"),
        ("1d12h", 129600, "36h"),
        ("45s", 45, "45s"),
        ("0.5h", 1800, "30m"),
        ("90", 90, "90s"),
        ("PT8H", 28800, "8h"),
    ],
)
def test_a_limit_is_a_duration_or_seconds(given: str, seconds: float, spelled: str) -> None:
    limit = smoke(f"time_limit={given}").time_limit
    assert limit
    assert limit.total_seconds() == seconds
    assert spell_limit(seconds) == spelled
    again = smoke(f"time_limit={spelled}")
    assert again.time_limit == limit
    assert Experiment.model_validate_json(again.model_dump_json()).time_limit == limit, "as workers read it"


@pytest.mark.parametrize("given", ["soon", "8 hours", "h", "-1", "0", "''", "true", ".inf", ".nan"])
def test_anything_else_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="time_limit"):
        smoke(f"time_limit={given}")


def test_members_leave_time_for_those_that_wait_for_them() -> None:
    after = steps_after(smoke(), STEPS, LARGE)
    assert after == {
        "retriever-bge": 30.0,
        "captioner-wide": 0.0,
        "retriever-bert": 20.0,
        "captioner-deep": 0.0,
        "fluency": 0.0,
    }


def test_members_leave_time_for_those_that_find_no_room_beside_them() -> None:
    """One CPU: all after each other, what starts last at the end."""
    experiment = smoke("members.*.resources={workers: 1, cpus_per_worker: 1}")
    after = steps_after(experiment, STEPS, {"CPU": 1.0})
    ends = sorted((after[name], after[name] + steps) for name, steps in STEPS.items())
    assert ends[0][0] == 0
    assert ends[-1][1] == sum(STEPS.values())
    assert all(end == start for (_, end), (start, _) in pairwise(ends)), "no two at the same time"
    assert after[by_critical_path(experiment, set(STEPS))[-1]] == 0, "what starts last"
    for name in STEPS:
        for edge in experiment.edges(name):
            assert after[edge] >= after[name] + STEPS[name]


def time_of(tmp_path: Path, used: float, *overrides: str) -> TrainingTime:
    experiment = smoke(f"storage_path={tmp_path}", "time_limit=1h", *overrides)
    directory = RunDirectory(experiment)
    TimeUsed(seconds=used).write(directory.root)
    time = TrainingTime(experiment, directory, LARGE, clock=lambda: 1000.0)
    time.steps |= STEPS
    return time


def test_shares_are_of_three_quarters_of_the_time_that_is_left(tmp_path: Path) -> None:
    time = time_of(tmp_path, used=1200.0)
    assert time.left == 1800
    assert time.share("retriever-bge", STEPS) == 1800 * 10 / 40
    assert time.share("captioner-wide", ["captioner-wide", "captioner-deep"]) == 1800
    assert time.share("fluency", STEPS) == 1800, "nobody waits for it"
    deadline = time.deadline("retriever-bge", STEPS)
    assert (deadline.limit_s, deadline.share_s, deadline.latest) == (3600, 450, 2800)
    assert time_of(tmp_path, used=3601.0).left == 0


def test_planned_steps_are_those_that_are_left(tmp_path: Path) -> None:
    experiment = smoke(f"storage_path={tmp_path}", "members.fluency.training.epochs=6")
    directory = RunDirectory(experiment)
    folder = directory.features("soundscapes", "train")
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number:05d}.arrow").touch()
    training = experiment.members["fluency"].training
    assert training
    epoch = max(1, 3 * experiment.features.clips_per_shard / training.batch_size)
    assert planned_steps(experiment, directory, "fluency") == 6 * epoch
    mark_done(directory.member("fluency"), directory.member_inputs("fluency"), **Cut(2, 6, 3600).details())
    assert planned_steps(experiment, directory, "fluency") == 4 * epoch


def test_durations_are_spelled_in_two_units() -> None:
    spelled = {0: "0 s", 59: "59 s", 200: "3 min 20 s", 3600: "1 h", 6720: "1 h 52 min", 90_061: "1 d 1 h"}
    assert {seconds: spell_exactly(seconds) for seconds in spelled} == spelled


@pytest.mark.parametrize("damaged", [None, [], {}, {"done": 1}, {"done": 1, "planned": 2, "limit_s": 9.0, "more": 1}])
def test_a_damaged_record_of_a_cut_marks_nothing_as_done(tmp_path: Path, damaged: object) -> None:
    mark_done(tmp_path, "inputs", cut=damaged)
    for limit in (None, timedelta(hours=1)):
        assert not is_done(tmp_path, "inputs", limit)


def test_workers_look_at_the_clock_about_every_ten_seconds() -> None:
    class Left(Deadline):
        def left(self) -> float:
            return self.share_s

    assert Left(3600, 1000.0, 0.0).steps_to_next_look(0.5) == 20
    assert Left(3600, 3.0, 0.0).steps_to_next_look(0.5) == 6, "at the deadline"
    assert Left(3600, 1000.0, 0.0).steps_to_next_look(60.0) == 1
    assert Left(3600, 0.0, 0.0).steps_to_next_look(0.5) == 0


def test_a_share_begins_when_the_workers_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = Deadline(3600, share_s=30.0, latest=2000.0)
    monkeypatch.setattr("time.time", lambda: 1900.0)
    assert deadline.left() == float("inf"), "while nodes start"
    deadline.begin()
    assert deadline.left() == 30
    monkeypatch.setattr("time.time", lambda: 1990.0)
    deadline.begin()
    assert deadline.left() == 10, "never longer than all training may take"
