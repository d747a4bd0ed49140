"""The search of retrieval weights: retrievers alone, and beside them with the columns of captioners."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.ensemble.retrieval_fusion import RetrievalFusion
from models.metrics.retrieval import retrieval_values
from ray_jobs import combine
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.best import BestRetrieval
from ray_jobs.run.directory import RunDirectory
from ray_jobs.tuning import retrieval
from ray_jobs.tuning.trained_members import ComputedColumns

SMOKE = Path(__file__).parents[3] / "experiments" / "smoke.yaml"
TARGET = np.repeat(np.arange(12), 3)


def noisy(noise: float, seed: int) -> np.ndarray:
    """Similarities [36, 12] that are right but for noise."""
    rng = np.random.default_rng(seed)
    return (np.arange(12) == TARGET[:, None]) + noise * rng.normal(size=(36, 12))


class Members:
    """What a search computes with a run's members."""

    def similarities(self) -> dict[str, np.ndarray]:
        return {"retriever-bge": noisy(0.9, 0), "retriever-roberta": noisy(0.9, 1)}

    def queries(self) -> tuple[list[str], np.ndarray]:
        return [""] * len(TARGET), TARGET

    def captioner_columns(self) -> ComputedColumns:
        return ComputedColumns({"captioner/likelihood": noisy(0.3, 2)}, {"captioner/likelihood": 0.5}, {})


def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> BestRetrieval:
    """Search without Ray, which here only gives each task a worker."""

    def remote(**_: Any) -> Any:
        return lambda task: SimpleNamespace(remote=task)

    monkeypatch.setattr(retrieval, "ray", SimpleNamespace(remote=remote, get=lambda result: result))
    monkeypatch.setattr(retrieval, "resources", lambda _: {"cpu": 1, "gpu": 0})
    monkeypatch.setattr(retrieval, "LOADED", SimpleNamespace(of=lambda _: Members()))
    experiment = load_experiment(str(SMOKE), [f"storage_path={tmp_path}", *overrides])
    directory = RunDirectory(experiment)
    retrieval.search_fusion(experiment, directory, []).best.write(directory.search("retrieval"))
    return BestRetrieval.read(directory.search("retrieval"))


def test_columns_of_captioners_have_weights_beside_those_of_retrievers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = search(tmp_path / "plain", monkeypatch)
    assert plain.with_captioners is None
    best = search(tmp_path / "with", monkeypatch, "search.retrieval_columns=[likelihood]")
    assert best.fusion == plain.fusion, "what a bundle retrieves by where captioners are left out"
    helped = best.with_captioners
    assert helped is not None
    assert helped.weights["captioner/likelihood"] > 0.3
    assert set(helped.weights) == {"retriever-bge", "retriever-roberta", "captioner/likelihood"}
    assert helped.costs.seconds_a_query == {"captioner/likelihood": 0.5}
    members = Members()
    known = {**members.similarities(), **members.captioner_columns().similarities}
    value = retrieval_values(helped.convert(RetrievalFusion).join(known), TARGET).corpus["map@10"]
    assert value == pytest.approx(helped.map_at_10, abs=1e-9)
    assert value > plain.map_at_10 + 0.05


def test_combine_reports_retrieval_with_captioners_and_its_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def combined(*overrides: str) -> combine.Retrieval:
        search(tmp_path, monkeypatch, *overrides)
        members: Any = Members()
        members.experiment = load_experiment(str(SMOKE), [f"storage_path={tmp_path}"])
        members.directory = RunDirectory(members.experiment)
        names = [f"{clip}.wav" for clip in range(12)]
        members.features = SimpleNamespace(file_names=names, clip_ids=names)
        members.directory.ensemble.mkdir(parents=True, exist_ok=True)
        return combine._retrieve(members)

    plain = combined()
    assert list(plain.text_to_audio) == ["retriever-bge", "retriever-roberta", "ensemble"]
    assert plain.costs is None
    helped = combined("search.retrieval_columns=[likelihood]")
    assert helped.costs is not None
    assert helped.costs.seconds_a_query == {"captioner/likelihood": 0.5}
    assert helped.text_to_audio["ensemble"] == plain.text_to_audio["ensemble"]
    assert helped.text_to_audio[combine.HELPED]["map@10"] > plain.text_to_audio["ensemble"]["map@10"] + 0.05
    (compared,) = [one for one in helped.comparisons if one.b == combine.HELPED]
    assert compared.a == "ensemble"
    assert compared.ci95[1] < 0


def test_a_search_of_before_there_were_columns_is_still_up_to_date(tmp_path: Path) -> None:
    def inputs(*overrides: str) -> str:
        return RunDirectory(load_experiment(str(SMOKE), [f"storage_path={tmp_path}", *overrides])).search_inputs()

    experiment: Experiment = load_experiment(str(SMOKE), [f"storage_path={tmp_path}"])
    asked = experiment.search.as_written().model_dump(mode="json")
    assert asked["retrieval_columns"] == []
    assert inputs() == inputs("search.retrieval_columns=[]", "search.retrieval_depth=50")
    assert inputs() != inputs("search.retrieval_columns=[captions]")


@pytest.mark.parametrize(
    ("field", "names"), [("columns", "likelihood, captions"), ("directions", "text-to-audio, audio-to-text")]
)
def test_names_in_another_order_are_the_same_settings(field: str, names: str, tmp_path: Path) -> None:
    def inputs(*names: str) -> str:
        asked = f"search.retrieval_{field}=[{', '.join(names)}]"
        return RunDirectory(load_experiment(str(SMOKE), [f"storage_path={tmp_path}", asked])).search_inputs()

    first, second = names.split(", ")
    assert inputs(second, first) == inputs(first, second) == inputs(first, second, first)
    assert inputs(first) != inputs(first, second)
