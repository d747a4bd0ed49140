"""When a search ends: with made-up results, and a clock that is set."""

import pickle

import pytest
from ray.tune.stopper import timeout

from ray_jobs.tuning.stop_in_time import StopInTime

PAPER, OWN, OTHER = {"top_p": 0.95}, {"top_p": 0.9}, {"top_p": 0.5}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in a list that tests change."""
    time = [1000.0]
    monkeypatch.setattr(timeout.time, "time", lambda: time[0])
    return time


def test_the_first_settings_are_tried_to_their_end_and_then_the_time_counts(now: list[float]) -> None:
    stopper = StopInTime(60.0, [PAPER, OWN], "clips", 12)
    assert not stopper.stop_all()
    now[0] += 61
    assert not stopper.stop_all()
    for config, clips in ((PAPER, 12), (OWN, 4), (OTHER, 12)):
        assert stopper("trial", {"config": config, "clips": clips}) is False, "no trial is stopped by itself"
        assert not stopper.stop_all(), "the own setting has not seen all clips"
    stopper("trial", {"config": OWN, "clips": 12})
    assert stopper.stop_all()


def test_a_search_has_its_time_and_an_interruption_takes_none_of_it(now: list[float]) -> None:
    stopper = StopInTime(60.0, [PAPER], "clips", 12)
    stopper("trial", {"config": PAPER, "clips": 12})
    stopper.stop_all()
    now[0] += 50
    assert not stopper.stop_all()
    again = pickle.loads(pickle.dumps(stopper))  # as Tune keeps it
    now[0] += 10_000
    assert not again.stop_all()
    now[0] += 11
    assert again.stop_all()
