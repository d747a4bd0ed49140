"""What is said before training and search: metrics or exclusion lists are missing, or weights will be replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.metrics import captions
from ray_jobs import train
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.run.directory import RunDirectory, mark_done

RECIPE = Path(__file__).parents[2] / "experiments" / "dcase2024.yaml"


@pytest.fixture(autouse=True)
def without_fense(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Look for FENSE's detector in an empty folder, and return it."""
    monkeypatch.setenv("FENSE_DATA", str(tmp_path))
    return tmp_path


def warnings_of(todo: set[str], *overrides: str) -> list[str]:
    experiment = load_experiment(RECIPE, list(overrides))
    return train.warnings_of(experiment, RunDirectory(experiment), todo)


def test_the_objective_falls_back_and_stays_what_it_was_searched_by(monkeypatch: pytest.MonkeyPatch) -> None:
    search = load_experiment(RECIPE).search
    assert "cider_d instead of fense" in (replaced := search.choose_objective())
    assert captions.CHECKER in replaced
    assert (search.objective, search.as_written().objective) == ("cider_d", "fense")
    monkeypatch.setattr(captions, "missing_parts", lambda metric: "")
    assert (search.choose_objective(), search.objective) == ("", "fense")
    assert (search.choose_objective("cider_d"), search.objective) == ("", "cider_d"), "as it was searched"


def test_a_search_is_the_same_on_every_machine() -> None:
    experiment = load_experiment(RECIPE)
    before = RunDirectory(experiment).search_inputs()
    experiment.search.choose_objective()
    assert RunDirectory(experiment).search_inputs() == before
    other = load_experiment(RECIPE, ["search.fallback_objective=meteor"])
    assert RunDirectory(other).search_inputs() != before


def test_without_a_fallback_the_objective_stays() -> None:
    search = load_experiment(RECIPE, ["search.fallback_objective=null"]).search
    assert (search.choose_objective(), search.objective) == ("", "fense")


def test_a_monitor_that_falls_back_is_said_before_training() -> None:
    (line,) = warnings_of({"captioner-large", "fluency"})[1:]
    assert line.startswith("members.captioner-large.monitor: cider_d instead of fense: ")
    assert captions.CHECKER in line


def test_wavcaps_without_an_exclusion_list_is_said_before_training(tmp_path: Path) -> None:
    root = f"corpora.wavcaps.root={tmp_path}"
    (warning,) = load_experiment(RECIPE, [root]).missing_exclusions()
    assert warning.startswith("corpora.wavcaps: clips of Clotho's and AudioCaps' test sets are in it, and no list")
    assert warnings_of({"fluency"}, root) == [warning]
    assert warnings_of(set(), root) == []
    assert not load_experiment(RECIPE, [root, "exclusions.lists=[ids.csv]"]).missing_exclusions()
    (tmp_path / "blacklist_exclude_test_ac.json").write_text("{}")
    assert not load_experiment(RECIPE, [root]).missing_exclusions()
    ignored = load_experiment(RECIPE, [root, "exclusions.evaluation_clips=false"])
    assert len(ignored.missing_exclusions()) == 1, "the lists in the folder are then not read"


def test_members_that_will_be_replaced_are_said_before_training(tmp_path: Path) -> None:
    """As where an experiment was copied and its name left as it was."""
    runs = f"storage_path={tmp_path}"
    trained = RunDirectory(load_experiment(RECIPE, [runs]))
    mark_done(trained.member("fluency"), trained.member_inputs("fluency"))
    assert not [line for line in warnings_of({"fluency", "captioner-large"}, runs) if "replaced" in line]
    (line,) = [line for line in warnings_of({"fluency", "captioner-large"}, runs, "seed=7") if "replaced" in line]
    assert line.startswith("fluency: trained before, with other settings, data or seed; what is there is replaced")
