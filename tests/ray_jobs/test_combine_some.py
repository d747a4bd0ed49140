"""combine --members: some members' own weights and values, from what search and combine kept, beside the whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from models.ensemble.candidate_table import CandidateTable
from models.ensemble.scores.base import MemberNames
from models.ensemble.scores.registry import score_columns
from models.files import write_arrays
from ray_jobs import export
from ray_jobs.cli import main
from ray_jobs.combine_some import combine_some, run
from ray_jobs.experiment.config import ConfigError
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.subset import with_members
from ray_jobs.results.member import MemberMetrics
from ray_jobs.results.metrics import CAPTION_VALUES, RETRIEVAL_VALUES
from ray_jobs.results.some_members import SomeMembersMetrics
from ray_jobs.run.directory import NotReadyError, RunDirectory, is_done, mark_done
from ray_jobs.tuning.choices import Choices
from ray_jobs.tuning.forward import select_within
from ray_jobs.tuning.trained_members import TrainedMembers

from .conftest import ROOT
from .example_results import best_reranking, best_retrieval, best_sampling
from .test_report import CLIP_ID, write_features

CLIPS = 12
SOME = ["retriever-bge", "retriever-roberta", "captioner-wide"]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A combined run in which captioner-wide's right captions are those that retriever-roberta likes best."""
    experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={tmp_path}"])
    directory, rng = RunDirectory(experiment), np.random.default_rng(0)
    captions = [[f"sound {clip} is heard in wording {n}" for n in range(3)] for clip in range(CLIPS)]
    write_features(experiment, directory, captions, rng)
    ids = [CLIP_ID.format(clip) for clip in range(CLIPS)]
    write_candidates(directory.search("reranking"), directory, ids, valued=True)
    write_candidates(directory.ensemble, directory, ids, valued=False)
    best_reranking(experiment).write(directory.search("reranking"))
    best_retrieval(experiment).write(directory.search("retrieval"))
    best_sampling(experiment, candidates=17).write(directory.search("sampling"))
    right = np.repeat(np.arange(CLIPS), 3)
    noise = {name: rng.normal(size=(3 * CLIPS, CLIPS)) for name in experiment.of_kind("retriever")}
    noise["retriever-roberta"] += 9 * np.eye(CLIPS)[right]
    write_arrays(directory.search("retrieval") / "similarities.npz", {**noise, "target": right})
    monkeypatch.setattr(
        TrainedMembers,
        "similarities",
        lambda self: {name: noise[name] for name in self.experiment.of_kind("retriever")},
    )
    full = pd.DataFrame({"system": "ensemble", "clip_id": ids, "cider_d": 0.0})
    full.to_parquet(directory.ensemble / CAPTION_VALUES)
    queries = pd.DataFrame({"system": "ensemble", "clip_id": np.repeat(ids, 3), "map@10": 0.0})
    queries.to_parquet(directory.ensemble / RETRIEVAL_VALUES)
    return directory


def write_candidates(path: Path, directory: RunDirectory, ids: list[str], valued: bool) -> None:
    """Write candidates of which the first, of captioner-deep, is best; the second, of captioner-wide, is right, too."""
    e, rng = directory.experiment, np.random.default_rng(1)
    sources = ["captioner-deep", "captioner-wide", "captioner-wide/beam"]
    texts = [[f"sound {n} is heard in wording 1", f"sound {n} is heard", "something else"] for n in range(len(ids))]
    names = MemberNames(e.of_kind("retriever"), e.of_kind("captioner"), e.caption_sources())
    scores = {column: rng.normal(size=(len(ids), 3)) for column in score_columns(names)}
    scores["encoder_score/retriever-roberta"] += np.array([0.0, 9.0, 0.0])
    table = CandidateTable(
        texts, [sources] * len(ids), [[5] * 3] * len(ids), np.ones((len(ids), 3), bool), scores, np.zeros((len(ids), 3))
    )
    values = {"cider_d": np.tile([3.0, 2.0, 0.0], (len(ids), 1))} if valued else {}
    path.mkdir(parents=True, exist_ok=True)
    table.to_frame(ids, values).to_parquet(path / "candidates.parquet")


def test_some_members_get_their_own_weights_and_values(directory: RunDirectory) -> None:
    whole = {path: path.read_bytes() for path in directory.ensemble.iterdir()}
    combine_some(directory.experiment.model_dump_json(), SOME)
    target = directory.ensemble_of(SOME)
    found = SomeMembersMetrics.read(target)
    assert (found.members, found.clips, target.name) == (SOME, CLIPS, f"ensemble-{'-'.join(SOME)}")
    assert found.captioning
    said = pd.read_csv(target / "captions.csv")["caption_predicted"]
    assert list(said) == [f"sound {n} is heard" for n in range(CLIPS)], "captioner-deep's are better, and not there"
    assert found.captioning.cross_validated == pytest.approx(2.0)
    assert found.captioning.comparison.delta == pytest.approx(found.captioning.values["cider_d"])
    weighed = {
        part for name, weight in found.captioning.reranking.weights.items() if weight for part in name.split("/")
    }
    assert not weighed & {"retriever-bert", "captioner-deep"}
    assert found.retrieval
    assert set(found.retrieval.fusion.weights) == {"retriever-bge", "retriever-roberta"}
    assert found.retrieval.values["map@10"] > 0.9
    assert found.retrieval.comparison
    assert found.retrieval.comparison.delta == pytest.approx(found.retrieval.values["map@10"])
    assert {path: path.read_bytes() for path in directory.ensemble.iterdir()} == whole


def test_retrievers_alone_only_retrieve(directory: RunDirectory) -> None:
    combine_some(directory.experiment.model_dump_json(), SOME[:2])
    found = SomeMembersMetrics.read(directory.ensemble_of(SOME[:2]))
    assert found.captioning is None
    assert found.retrieval


def test_export_takes_what_was_chosen_for_exactly_these_members(directory: RunDirectory) -> None:
    some = with_members(directory.experiment, SOME)
    assert Choices.of_some(some, directory) == Choices.unsearched(some), "not combined yet"
    combine_some(directory.experiment.model_dump_json(), SOME)
    mark_done(directory.ensemble_of(SOME), directory.search_inputs())
    found, choices = SomeMembersMetrics.read(directory.ensemble_of(SOME)), Choices.of_some(some, directory)
    assert found.captioning
    assert found.retrieval
    assert (choices.reranking, choices.retrieval) == (found.captioning.reranking, found.retrieval.fusion)
    assert choices.sampling.candidates == 17
    mark_done(directory.ensemble_of(SOME), "an earlier search")
    assert Choices.of_some(some, directory) == Choices.unsearched(some)


def test_the_job_marks_what_it_made(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    here = SimpleNamespace(remote=lambda **_: lambda work: SimpleNamespace(remote=work), get=lambda done: done)
    monkeypatch.setattr("ray_jobs.combine_some.ray", here)
    monkeypatch.setattr("ray_jobs.combine_some.resources", lambda _: {"gpu": 0})
    mark_done(directory.ensemble, directory.search_inputs())
    run(directory.experiment, [*reversed(SOME)])
    assert is_done(directory.ensemble_of(SOME), directory.search_inputs())
    assert is_done(directory.ensemble, directory.search_inputs())


SIZES = {
    "retriever-bge": 30, "retriever-bert": 10, "retriever-roberta": 40, "captioner-wide": 50, "captioner-deep": 60,
    "fluency": 5,
}  # fmt: skip


def write_sizes(directory: RunDirectory) -> None:
    for name, member in directory.experiment.members.items():
        MemberMetrics(
            member=name, kind=member.kind, split="validation", chosen_by="", epochs=1, best={}, kept_epochs=[1],
            parameters=SIZES[name], seconds=1.0, seed=0, commit="",
        ).write(directory.member(name))  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "selected"),
    [
        # captioner-deep has the better captions, and reads retriever-bert; retriever-roberta alone retrieves well
        (200, ["retriever-bert", "retriever-roberta", "captioner-deep"]),
        (110, ["retriever-bert", "retriever-roberta", "captioner-deep"]),
        (109, ["retriever-bert", "captioner-deep"]),
        (60, ["retriever-roberta"]),
        (10, ["retriever-bert"]),
    ],
)
def test_members_are_selected_within_a_number_of_parameters(
    directory: RunDirectory, limit: int, selected: list[str]
) -> None:
    write_sizes(directory)
    found = select_within(directory.experiment, limit)
    assert {*selected} <= {*found}
    assert sum(SIZES[name] for name in found) <= limit
    assert found == selected or limit == 200, "what adds nothing is left out where it would not fit"


def test_a_number_of_parameters_that_fits_no_member_is_refused(directory: RunDirectory) -> None:
    write_sizes(directory)
    with pytest.raises(ConfigError, match="--max-parameters: found 9, expected 10 or more"):
        select_within(directory.experiment, 9)
    with pytest.raises(ConfigError, match="--members: found beside --max-parameters"):
        export.run(directory.experiment, members="retriever-bge", max_parameters=9)


def test_bad_input_is_refused_before_any_work(directory: RunDirectory) -> None:
    with pytest.raises(ConfigError, match="'captioner-deep' reads the audio embeddings of 'retriever-bert'"):
        run(directory.experiment, ["captioner-deep"])
    with pytest.raises(NotReadyError, match="run `enclap combine`"):
        run(directory.experiment, SOME)


def test_members_that_there_are_not_are_told_before_ray_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_jobs.cli.join_cluster", lambda: pytest.fail("Ray is started"))
    with pytest.raises(SystemExit, match="2"):
        main(["combine", str(ROOT / "experiments/smoke.yaml"), f"storage_path={tmp_path}", "--members", "nobody"])
    assert "--members: 'nobody' is not among members" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
