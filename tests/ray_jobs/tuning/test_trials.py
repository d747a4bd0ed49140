"""Trials of Ray Tune: proposed, stopped, printed, and going on after an interruption."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from ray_jobs.tuning import trials
from ray_jobs.tuning.trials import TrialLines, make_scheduler, make_searcher, run_trials, spell_settings

SPACE = {"x": tune.uniform(0.0, 1.0)}
POINTS = [{"x": 0.25}, {"x": 0.75}]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def trial(config: dict[str, Any], folder: Path) -> None:
    """Report x, and leave a file; the second setting fails until `mended` is there."""
    (folder / f"{config['x']}").touch()
    if config["x"] == POINTS[1]["x"] and not (folder / "mended").exists():
        raise RuntimeError("a node went away")
    tune.report({"value": config["x"], "epoch": 1})


def run(folder: Path, resume_errored: bool = False) -> tune.ResultGrid:
    return run_trials(
        "search: x",
        tune.with_resources(tune.with_parameters(trial, folder=folder), {"cpu": 1}),
        SPACE,
        tune.TuneConfig(
            metric="value",
            mode="max",
            num_samples=3,
            max_concurrent_trials=1,
            search_alg=make_searcher("optuna", POINTS, 0),
        ),
        tune.RunConfig(
            name="x",
            storage_path=str(folder / "tune"),
            verbose=0,
            callbacks=[TrialLines("search: x", "value", "after {epoch} epochs")],
        ),
        resume_errored,
    )


@pytest.mark.usefixtures("local_ray")
def test_an_interrupted_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(trials, "say", lambda message, style="": said.append(message))
    first = run(tmp_path)
    assert first.num_errors == 1
    assert "study" not in capfd.readouterr().err, "what Optuna says stands between the lines of a search"
    configs = [result.config["x"] for result in first if result.config]
    assert configs[:2] == [point["x"] for point in POINTS], "the given points are the first trials"
    assert not any("goes on" in line for line in said)
    assert "search: x: trial 1: x 0.25  value 0.25 after 1 epochs" in said

    (tmp_path / "mended").touch()
    for path in tmp_path.glob("0.*"):
        path.unlink()
    second = run(tmp_path, resume_errored=True)
    assert "search: x goes on where it was stopped" in said
    assert second.num_errors == 0
    assert {result.config["x"] for result in second if result.config} == set(configs)
    assert [path.name for path in tmp_path.glob("0.*")] == ["0.75"], "what had ended is not run again"


@pytest.mark.usefixtures("local_ray")
def test_a_search_whose_state_was_cut_off_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune writes its state in place, so a killed search can leave half of it."""
    said: list[str] = []
    monkeypatch.setattr(trials, "say", lambda message, style="": said.append(message))
    (tmp_path / "mended").touch()
    run(tmp_path)
    (state,) = (tmp_path / "tune").glob("*/tuner.pkl")
    state.write_bytes(state.read_bytes()[:20])
    said.clear()
    assert len(run(tmp_path)) == 3
    assert said[0].startswith(f"search: x starts anew: its state in {state.parent} cannot be read (")


def test_only_asha_stops_trials() -> None:
    assert type(make_scheduler("none", "epoch", 1, 9, 3)) is FIFOScheduler
    assert isinstance(make_scheduler("asha", "epoch", 1, 9, 3), ASHAScheduler)


def test_lines_count_what_has_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(trials, "say", said.append)
    mine = SimpleNamespace(config={"lr": 0.00123456, "loss": "m-ltm"}, last_result={"map@10": 0.123456, "clips": 12})
    others = [SimpleNamespace(is_finished=lambda: True), SimpleNamespace(is_finished=lambda: False)]
    TrialLines("search", "map@10", "on {clips} clips").on_trial_complete(0, [*others, mine], mine)
    assert said == ["search: trial 2: lr 0.001235  loss m-ltm  map@10 0.1235 on 12 clips"]
    assert spell_settings({"lr": 1e-5, "candidates": 30}) == "lr 1e-05  candidates 30"
