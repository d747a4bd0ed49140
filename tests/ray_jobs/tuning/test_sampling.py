"""The settings that the sampling search tries, and its refusals before any work; no Ray."""

from pathlib import Path

import pytest

from models.metrics.captions import MissingPartError
from models.settings import SamplingConfig
from ray_jobs import search
from ray_jobs.experiment.config import ConfigError
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.run.directory import NotReadyError
from ray_jobs.tuning.inner_search import mixtures
from ray_jobs.tuning.sampling_space import distance, first_points, sampling_space, setting
from tune_spaces.sampling import SPACES

SMOKE = Path(__file__).parents[3] / "experiments" / "smoke.yaml"


NINE_TRIALS = {"nucleus": 3**2, "truncation": 2**4, "wide": 2**6}  # settings of a grid: two values a field at least


@pytest.mark.parametrize("name", list(SPACES))
@pytest.mark.parametrize("searcher", ["optuna", "random", "grid"])
def test_the_papers_setting_is_first_and_every_point_is_a_setting(name: str, searcher: str) -> None:
    experiment = load_experiment(
        SMOKE, [f"search.sampling_space={name}", f"search.searcher={searcher}", "search.trials=9"]
    )
    space = sampling_space(experiment)
    assert set(space) <= set(SamplingConfig.model_fields)
    points = first_points(experiment, space)
    paper = setting(experiment, points[0])
    assert (paper.temperature, paper.top_p) == (0.5, 0.95)
    assert (paper.candidates == 50) == ("candidates" in space)
    # where the paper's setting is not the experiment's own, that is the second
    own = points["candidates" in space]
    assert setting(experiment, own) == experiment.sampling
    assert distance(experiment, space, own) == 0
    assert all(distance(experiment, space, point) > 0 for point in points if point != own)
    assert len({setting(experiment, point).model_dump_json() for point in points}) == len(points)
    others = points[1 + ("candidates" in space) :]
    assert len(others) == (NINE_TRIALS[name] if searcher == "grid" else 0)
    for field, domain in space.items() if others else ():
        ends = (
            domain.categories[:: len(domain.categories) - 1]
            if hasattr(domain, "categories")
            else ([domain.lower, domain.upper])
        )
        assert {ends[0], ends[1]} <= {point[field] for point in others}


def test_own_values_are_within_the_space() -> None:
    experiment = load_experiment(
        SMOKE, ["search.sampling_space=wide", "sampling.candidates=7", "sampling.temperature=1.3"]
    )
    space = sampling_space(experiment)
    assert space["candidates"].categories == [7, 10, 20, 30, 50]
    assert (space["temperature"].lower, space["temperature"].upper) == (0.2, 1.3)


def test_a_grid_has_about_as_many_points_as_trials() -> None:
    experiment = load_experiment(SMOKE, ["search.searcher=grid", "search.trials=16"])
    space = sampling_space(experiment)
    points = first_points(experiment, space)
    assert len(points) == 17
    assert sorted({point["temperature"] for point in points[1:]}) == pytest.approx(
        [0.2, 0.2 + 0.8 / 3, 0.2 + 1.6 / 3, 1.0]
    )
    wide = load_experiment(SMOKE, ["search.searcher=grid", "search.trials=16", "search.sampling_space=wide"])
    assert len(first_points(wide, sampling_space(wide))) <= 2 + 2 ** len(SPACES["wide"])


def test_a_setting_of_the_grid_that_is_tried_first_is_not_tried_again() -> None:
    at_a_corner = ["search.searcher=grid", "search.trials=4", "sampling.temperature=0.2", "sampling.top_p=0.7"]
    experiment = load_experiment(SMOKE, at_a_corner)
    points = first_points(experiment, sampling_space(experiment))
    assert points[1] == {"temperature": 0.2, "top_p": 0.7}, "the experiment's own"
    assert [point for point in points if point == points[1]] == [points[1]]
    assert len(points) == 1 + 2 * 2, "the paper's setting, and the four corners"


def test_whole_numbers_stay_whole() -> None:
    experiment = load_experiment(SMOKE, ["search.sampling_space=wide"])
    own = experiment.sampling.model_dump()
    found = setting(experiment, {**own, "top_k": 25.0, "candidates": 20.0})
    assert (found.top_k, found.candidates) == (25, 20)


def test_mixtures_can_be_switched_off() -> None:
    captioners = ["captioner-wide", "captioner-deep"]
    assert mixtures(load_experiment(SMOKE)) == [captioners, ["captioner-wide"], ["captioner-deep"]]
    assert mixtures(load_experiment(SMOKE, ["search.mixtures=false"])) == [captioners]


def test_bad_searches_are_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = f"storage_path={tmp_path}"
    with pytest.raises(ConfigError, match=r"search\.sampling_space: found 'beam', expected one of nucleus"):
        search.run(load_experiment(SMOKE, [storage, "search.sampling_space=beam"]))
    with pytest.raises(ConfigError, match="text-to-audio is missing"):
        load_experiment(SMOKE, ["search.retrieval_directions=[audio-to-text]"])
    with pytest.raises(ConfigError, match=r"search\.objective"):
        load_experiment(SMOKE, ["search.objective=vocab"])
    monkeypatch.setattr(search, "missing_parts", lambda metric: "no checker here" if metric == "fense" else "")
    with pytest.raises(MissingPartError, match="fense: no checker here"):
        search.run(load_experiment(SMOKE, [storage, "search.objective=fense"]))
    # with its parts there, FENSE is an objective like any other: what is missing then is the training
    monkeypatch.setattr(search, "missing_parts", lambda metric: "")
    with pytest.raises(NotReadyError, match="enclap train"):
        search.run(load_experiment(SMOKE, [storage, "search.objective=fense"]))
