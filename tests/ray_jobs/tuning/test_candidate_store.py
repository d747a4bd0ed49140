"""Candidates that are drawn once, and a search that never sees the test split."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.ensemble.candidate_table import CandidateError, CandidateTable
from models.ensemble.score_arrays import NoCandidateError, NonFiniteScoreError
from models.ensemble.scores import registry
from models.ensemble.scores.decoder import DecoderScore
from models.ensemble.scores.registry import score_columns
from models.settings import SamplingConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.search_config import SearchConfig
from ray_jobs.features.dataset import Features
from ray_jobs.run.directory import ForbiddenSplitError, RunDirectory
from ray_jobs.tuning import candidate_store, sampling
from ray_jobs.tuning.candidate_store import (
    CandidateStore,
    add_values,
    member_names,
    rung_sizes,
    shard_slices,
    validation_directory,
)
from ray_jobs.tuning.trained_members import TrainedMembers

SMOKE = Path(__file__).parents[3] / "experiments" / "smoke.yaml"
CLIPS = 16
CLIP_IDS = [f"clip-{n}" for n in range(CLIPS)]
CAPTIONS = [[f"a sound number {n} is heard", f"sound {n}"] for n in range(CLIPS)]


class Members:
    """Stands for the trained members: two candidates a clip; counts what is asked of it."""

    captioners = retrievers = audio_embeddings = detector = references = None

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.drawn = experiment, list[slice]()
        empty: list = [None] * CLIPS
        self.features = Features(CLIP_IDS, empty, CAPTIONS, empty, empty, empty, empty, empty, {})

    def candidates(self, sampling: SamplingConfig, clips: slice) -> CandidateTable:
        self.drawn.append(clips)
        numbers = range(CLIPS)[clips]
        shape = (len(numbers), 2)
        scores = np.random.default_rng(numbers[0]).normal(size=shape)
        return CandidateTable(
            texts=[[f"sound {n}", f"a noise at {sampling.temperature}"] for n in numbers],
            captioners=[["captioner-wide", "captioner-deep+captioner-wide"]] * len(numbers),
            tokens=[[2, 4]] * len(numbers),
            mask=np.ones(shape, bool),
            scores=dict.fromkeys(score_columns(member_names(self.experiment)), scores),
            fluency_error=np.zeros(shape),
        )


@pytest.fixture
def members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Members:
    experiment = load_experiment(SMOKE, [f"storage_path={tmp_path}", "search.clips=12"])
    fake = Members(experiment)
    monkeypatch.setattr(candidate_store, "TrainedMembers", lambda *_: fake)
    monkeypatch.setattr(candidate_store, "LOADED", candidate_store.LoadedMembers())
    monkeypatch.setattr(candidate_store, "CLIPS_PER_FILE", 8)
    return fake


def build(store: CandidateStore, metrics: list[str]) -> None:
    for part in shard_slices(CLIPS, store.experiment.search):
        store.build(part, metrics)


def test_parts_grow_and_files_end_where_they_do(members: Members) -> None:
    search = members.experiment.search
    assert rung_sizes(CLIPS, search) == [4, 12]
    assert [(one.start, one.stop) for one in shard_slices(CLIPS, search)] == [(0, 4), (4, 12), (12, 16)]
    whole = SearchConfig(rungs=3)
    assert rung_sizes(1045, whole) == [116, 348, 1045]
    ends = [one.stop for one in shard_slices(1045, whole)]
    assert {116, 348, 1045} <= set(ends)
    assert max(np.diff([0, *ends])) <= 8
    assert rung_sizes(4, SearchConfig(rungs=5)) == [3, 4]
    assert rung_sizes(2, SearchConfig()) == [2]


def test_what_is_there_is_not_drawn_again(members: Members) -> None:
    store = CandidateStore(members.experiment, members.experiment.sampling)
    store.build(slice(0, 4), ["cider_d"])
    build(store, ["cider_d"])
    assert members.drawn == [slice(0, 4), slice(4, 12), slice(12, 16)]
    build(store, ["cider_d", "rouge_l"])  # more metrics need no new candidates
    assert len(members.drawn) == 3
    other = members.experiment.sampling.model_copy(update={"temperature": 0.9})
    build(CandidateStore(members.experiment, other), ["cider_d"])
    assert len(members.drawn) == 6
    assert not list(store.folder.glob("*.partial"))


def test_files_from_before_a_score_was_registered_are_made_anew(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CandidateStore(members.experiment, members.experiment.sampling)
    build(store, ["cider_d"])
    words = type("Length", (DecoderScore,), {"name": "words"})()
    monkeypatch.setattr(registry, "SCORES", (*registry.SCORES, words))
    with pytest.raises(CandidateError, match="no column 'words_score'"):
        store.read(CLIP_IDS, members.experiment.search, CLIPS)
    build(store, ["cider_d"])
    known = store.read(CLIP_IDS, members.experiment.search, CLIPS)
    table, values = known.table, known.values
    assert table.score_names[-1] == "words"
    assert list(values) == ["cider_d"]
    assert len(members.drawn) == 6


def test_files_that_know_encoder_and_decoder_alone_get_the_scores_of_the_members(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those are the files of earlier versions: the columns of captioners and retrievers are missing from them."""
    store = CandidateStore(members.experiment, members.experiment.sampling)
    with monkeypatch.context() as earlier:
        earlier.setattr(registry, "SCORES", registry.ALWAYS)
        build(store, ["cider_d"])
        before = store.read(CLIP_IDS, members.experiment.search, CLIPS)
        assert before.table.score_names == [*members.experiment.of_kind("retriever"), "decoder"]
    assert not store.is_there(slice(0, 4), ["cider_d"])
    build(store, ["cider_d"])
    table = store.read(CLIP_IDS, members.experiment.search, CLIPS).table
    assert {"likelihood/captioner-wide", "joint/mean", "rank/retriever-bge", "length"} <= set(table.score_names)
    assert len(members.drawn) == 6


class InThisProcess:
    """Stands for the task `build_remotely`: runs it at once, with the members of this process."""

    def options(self, **_: float) -> "InThisProcess":
        return self

    def remote(self, experiment: Experiment, setting: SamplingConfig, clips: slice, metrics: list[str]) -> float:
        return CandidateStore(experiment, setting).build(clips, metrics)


def test_a_score_registered_after_all_trials_ended_is_added_to_their_candidates(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune starts no trial again that has ended, so that nobody else would draw what is missing."""
    monkeypatch.setattr(registry, "SCORES", registry.ALWAYS)  # few weights to search
    monkeypatch.setattr(candidate_store, "build_remotely", InThisProcess())
    monkeypatch.setattr(candidate_store, "gpu_share", lambda share: share)
    monkeypatch.setattr(candidate_store.ray, "get", list)
    e = members.experiment
    values = {e.search.objective: 0.5, "in_sample": 0.5, "clips": 12, "seconds": 1.0, "started": 0.0, "pid": 1}
    settings = {"config/temperature": e.sampling.temperature, "config/top_p": e.sampling.top_p}
    ended = pd.DataFrame([{**settings, **values, "generating_s": 1.0}])
    monkeypatch.setattr(sampling, "_run_trials", lambda *_: ended)
    build(CandidateStore(e, e.sampling), [e.search.objective])
    drawn = len(members.drawn)
    words = type("Length", (DecoderScore,), {"name": "words"})()
    monkeypatch.setattr(registry, "SCORES", (*registry.SCORES, words))
    outcome = sampling.search_sampling(e, validation_directory(e), CLIP_IDS)
    assert (outcome.best.trials_on_all_clips, outcome.best.temperature) == (1, e.sampling.temperature)
    assert members.drawn[drawn:] == [slice(0, 4), slice(4, 12)], "the clips that the trials saw, and no more"


def test_a_damaged_file_is_made_anew(members: Members) -> None:
    store = CandidateStore(members.experiment, members.experiment.sampling)
    build(store, ["cider_d"])
    whole = store.path(slice(0, 4)).read_bytes()
    store.path(slice(0, 4)).write_bytes(whole[: len(whole) // 2])
    build(store, ["cider_d"])
    assert members.drawn[3:] == [slice(0, 4)]
    assert store.path(slice(0, 4)).read_bytes() == whole


def test_a_table_is_the_same_from_whatever_files(members: Members, tmp_path: Path) -> None:
    search = members.experiment.search
    store = CandidateStore(members.experiment, members.experiment.sampling)
    build(store, ["cider_d", "rouge_l"])
    known = store.read(CLIP_IDS, search, CLIPS)
    table, values = known.table, known.values
    assert table.texts[7] == ["sound 7", "a noise at 0.5"]
    few = store.read(CLIP_IDS, search, 12)
    part, part_values = few.table, few.values
    assert part.texts == table.texts[:12]
    # the value of a candidate does not depend on which clips are looked at
    np.testing.assert_array_equal(part_values["cider_d"], values["cider_d"][:12])
    whole = add_values(table.to_frame(CLIP_IDS), CLIP_IDS, CAPTIONS, ["cider_d", "rouge_l"])
    np.testing.assert_array_equal(whole["value/cider_d"], values["cider_d"].ravel())
    shuffled = add_values(table.to_frame(CLIP_IDS).sample(frac=1, random_state=0), CLIP_IDS, CAPTIONS, ["rouge_l"])
    np.testing.assert_array_equal(shuffled.sort_index()["value/rouge_l"], values["rouge_l"].ravel())


def test_files_of_other_members_or_clips_are_named(members: Members) -> None:
    search, store = members.experiment.search, CandidateStore(members.experiment, members.experiment.sampling)
    build(store, ["cider_d"])
    with pytest.raises(CandidateError, match="candidates of 'clip-0', which is not among the 16 clips"):
        store.read([f"other-{n}" for n in range(CLIPS)], search, CLIPS)
    path = store.path(slice(0, 4))
    whole = pd.read_parquet(path)
    whole.query("clip_id != 'clip-2'").to_parquet(path)
    with pytest.raises(NoCandidateError, match="clip-2"):
        store.read(CLIP_IDS, search, CLIPS)
    whole.assign(fluency_error=np.nan).to_parquet(path)
    with pytest.raises(NonFiniteScoreError, match="fluency_error of clip 'clip-0', candidate 'sound 0'"):
        store.read(CLIP_IDS, search, CLIPS)
    whole.drop(columns="encoder_score/retriever-bge").to_parquet(path)
    with pytest.raises(CandidateError, match="no column 'encoder_score/retriever-bge'"):
        store.read(CLIP_IDS, search, CLIPS)


def test_a_clip_without_references_is_named(members: Members) -> None:
    members.features.captions = [*CAPTIONS[:3], [], *CAPTIONS[4:]]
    store = CandidateStore(members.experiment, members.experiment.sampling)
    with pytest.raises(CandidateError, match=r"clip 'clip-3': .*no reference.*cannot be valued"):
        store.build(slice(0, 4), ["cider_d"])


def test_a_search_cannot_read_the_test_split(tmp_path: Path) -> None:
    experiment = load_experiment(SMOKE, [f"storage_path={tmp_path}"])
    directory = validation_directory(experiment)
    assert directory.features("soundscapes", "validation") == RunDirectory(experiment).features(
        "soundscapes", "validation"
    )
    for split in ("test", "train"):
        with pytest.raises(ForbiddenSplitError, match=f"must not read {split}"):
            directory.features("soundscapes", split)
        with pytest.raises(ForbiddenSplitError):
            TrainedMembers(experiment, split, directory)
    with pytest.raises(ForbiddenSplitError, match="must not read all splits of soundscapes"):
        directory.features("soundscapes")
    with pytest.raises(ForbiddenSplitError, match="must not read results on test"):
        _ = directory.ensemble
