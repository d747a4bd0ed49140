"""The seconds of a system are those of what it needs, and no more."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from models.ensemble.reranking import Reranking
from models.generation.proposals import Proposals
from models.settings import SamplingConfig
from ray_jobs.tuning import trained_members
from ray_jobs.tuning.latency import system_seconds
from ray_jobs.tuning.trained_members import TrainedMembers

from ..training.distilled import CAPTIONERS, RETRIEVERS, raw_experiment, save_teachers, write_run


def test_a_system_is_measured_with_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = raw_experiment(tmp_path)["members"]
    experiment = write_run(tmp_path, members={name: raw[name] for name in (*RETRIEVERS, *CAPTIONERS)})
    save_teachers(experiment)
    asked, propose = [], trained_members.propose

    def counted(*given: Any, **named: Any) -> Proposals:
        asked.append((given[4] and sorted(given[4]), sorted(given[5])))
        return propose(*given, **named)

    monkeypatch.setattr(trained_members, "propose", counted)
    sampling = SamplingConfig(candidates=2, max_tokens=8)
    own = ["captioner-a", "captioner-a/beam"]
    choices = {
        "captioner-a/rerank": Reranking(weights={"decoder": 1.0}, captioners=own),
        "ensemble": Reranking(weights={"likelihood/captioner-b": 1.0, "consensus/ngram": 1.0}, captioners=own),
    }
    found = system_seconds(TrainedMembers(experiment, "validation"), sampling, choices)
    beams: list[tuple[Collection[str] | None, list[str]]] = [([f"{name}/beam"], []) for name in CAPTIONERS]
    assert asked == [*beams, (own, []), (None, ["captioner-b"])]
    assert found.clips == 16
    assert set(found.embedding) == set(RETRIEVERS)
    assert set(found.captioning) == {*(f"{name}/beam" for name in CAPTIONERS), *choices}
    assert min(*found.embedding.values(), *found.captioning.values()) > 0
