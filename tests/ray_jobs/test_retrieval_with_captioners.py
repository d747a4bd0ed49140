"""A bundle lets captioners help to retrieve as `combine` does, and retrieves without them where it is told to."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from corpora.table import QUARANTINE_COLUMNS, CorpusTable, clip_frame
from models.commands import index as index_job
from models.commands import retrieve
from models.commands.options import Searching
from models.commands.retrieve import say_cost
from models.ensemble import bundle
from models.ensemble.bundle import Ensemble
from models.ensemble.captioner_fusion import CODES, FusionWithCaptioners
from models.ensemble.index import AudioIndex
from models.ensemble.index_record import RECORD
from models.ensemble.manifest import MANIFEST
from models.errors import InputError
from models.files import CheckpointError
from models.metrics.retrieval import pessimistic_ranks
from ray_jobs import cli, combine, evaluate, export
from ray_jobs.experiment.config import Experiment
from ray_jobs.features.dataset import read_features
from ray_jobs.inference import evaluation
from ray_jobs.results.best import BestRetrieval, CaptionerWeights, ColumnCosts
from ray_jobs.run.directory import RunDirectory
from ray_jobs.tuning.choices import Choices
from ray_jobs.tuning.trained_members import TrainedMembers

from .training.distilled import CAPTIONERS, CLIPS, RETRIEVERS, save_teachers, write_run
from .training.test_distillation import Codec, clip_of

SPLIT = "validation"
WORTH = {"map@10": 0.5, "optimism": 0.0, "best_value": 0.5, "rule": "best"}
ALONE = {RETRIEVERS[0]: 0.7, RETRIEVERS[1]: 0.3}
HELPED = {
    RETRIEVERS[0]: 0.2,
    RETRIEVERS[1]: 0.1,
    f"{CAPTIONERS[0]}/likelihood": 0.2,
    f"{CAPTIONERS[1]}/likelihood": 0.2,
    f"{RETRIEVERS[0]}/captions": 0.3,
    f"{RETRIEVERS[1]}/captions": 0.0,
}


def best(with_captioners: float = 0.6) -> BestRetrieval:
    """Weights of retrievers alone and with captioners, and what the latter are worth held out; the former are 0.5."""
    costs = ColumnCosts(seconds_a_query={}, seconds_a_clip={})
    helped = CaptionerWeights(weights=HELPED, normalisation="z", cross_validated=with_captioners, costs=costs, **WORTH)
    return BestRetrieval(
        weights=ALONE, normalisation="z", cross_validated=0.5, with_captioners=helped, split=SPLIT, seed=0, **WORTH
    )


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A run of two retrievers and two captioners that asks for both columns, for the five best clips of a query."""
    whole = write_run(tmp_path_factory.mktemp("run"))
    save_teachers(whole)
    some = export.with_members(whole, [*RETRIEVERS, *CAPTIONERS])
    search = some.search.model_copy(update={"retrieval_columns": ["likelihood", "captions"], "retrieval_depth": 5})
    beam = some.beam.model_copy(update={"beams": 2, "max_tokens": 8})
    made = some.model_copy(update={"search": search, "beam": beam})
    best().write(RunDirectory(made).search("retrieval"))
    return made


@pytest.fixture
def exported(experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(export, "load_codec", lambda *_: Codec())
    monkeypatch.setattr(bundle, "load_codec", lambda *_: Codec())
    monkeypatch.setattr(export, "write_self_test", lambda *_: None)  # which the stand-in cannot encode
    directory = RunDirectory(experiment)
    unsearched = Choices.unsearched(experiment)
    found = BestRetrieval.read(directory.search("retrieval"))
    choices = Choices(
        unsearched.sampling, unsearched.reranking, found.fusion, found.helped(experiment.search.retrieval_depth)
    )
    with export._bundle(experiment, directory, tmp_path / "bundle", choices=choices):
        pass
    return tmp_path / "bundle"


def index(ensemble: Ensemble, experiment: Experiment, rows: range = range(CLIPS)) -> None:
    clips = read_features([RunDirectory(experiment).features("sounds", SPLIT)])
    for at in rows[::7]:  # a part at a time, as it grows
        part = range(at, min(at + 7, rows.stop))
        ensemble.index_clips([clips.clip_ids[row] for row in part], [clip_of(clips, row) for row in part])


def test_a_bundle_ranks_as_combine_reports(exported: Path, experiment: Experiment) -> None:
    members = TrainedMembers(experiment, SPLIT)
    members.directory.ensemble.mkdir(parents=True, exist_ok=True)
    combine._retrieve(members)
    values = pd.read_parquet(members.directory.ensemble / combine.RETRIEVAL_VALUES)
    expected = values[values["system"] == combine.HELPED]["rank"].to_numpy()
    alone = values[values["system"] == "ensemble"]["rank"].to_numpy()
    queries, target = members.queries()
    ensemble = Ensemble.load(exported, device="cpu")
    index(ensemble, experiment)
    ensemble.save_index()
    ensemble = Ensemble.load(exported, device="cpu")
    assert ensemble.audio_index.paths == members.features.clip_ids
    assert ensemble.helped
    assert "captioners" not in ensemble.__dict__, "nothing is loaded before it is needed"
    np.testing.assert_array_equal(pessimistic_ranks(ensemble.similarity(queries), target), expected)
    for row, (query, clip) in enumerate(zip(queries, target, strict=True)):
        ranked = [match.path for match in ensemble.retrieve(query, CLIPS)]
        assert ranked.index(members.features.clip_ids[clip]) == expected[row] - 1
    ensemble = Ensemble.load(exported, device="cpu", ask_captioners=False)
    np.testing.assert_array_equal(pessimistic_ranks(ensemble.similarity(queries), target), alone)
    assert (expected != alone).any()


def test_captions_alone_need_no_captioner_to_answer_a_query(exported: Path, experiment: Experiment) -> None:
    content = json.loads((exported / MANIFEST).read_text())
    content["retrieval_with_captioners"]["weights"] = {RETRIEVERS[0]: 0.5, f"{RETRIEVERS[0]}/captions": 0.5}
    (exported / MANIFEST).write_text(json.dumps(content))
    ensemble = Ensemble.load(exported, device="cpu")
    index(ensemble, experiment)
    ensemble.save_index()
    ensemble = Ensemble.load(exported, device="cpu")
    assert {*ensemble.audio_index.kept} == {f"{RETRIEVERS[0]}/captions"}
    ensemble.retrieve("a dog")
    assert ensemble.helped
    assert not {"captioners", "codec", "detector"} & {*ensemble.__dict__}


def test_an_index_without_what_captioners_need_is_searched_by_retrievers_and_told(
    exported: Path, experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble = Ensemble.load(exported, device="cpu", ask_captioners=False)
    index(ensemble, experiment, range(10))
    ensemble.save_index()
    assert "captioners" not in json.loads((exported / "index" / RECORD).read_text()), "as earlier versions wrote it"
    ensemble = Ensemble.load(exported, device="cpu")
    index(ensemble, experiment, range(10, CLIPS))
    assert not ensemble.helped
    assert "captioners" not in ensemble.__dict__, "no captions are made that could not be used"
    found = ensemble.similarity(["a dog"])
    similarities = ensemble.audio_index.similarities(ensemble.texts_under_metric(["a dog"]))
    np.testing.assert_array_equal(found, ensemble.manifest.retrieval.join(similarities))
    say_cost(ensemble, "retrieve", 1.0, 1)
    assert "the index keeps nothing for captioners" in capsys.readouterr().err


def test_files_are_not_added_without_captioners_to_an_index_that_keeps_what_they_need(
    exported: Path, experiment: Experiment, tmp_path: Path
) -> None:
    ensemble = Ensemble.load(exported, device="cpu")
    index(ensemble, experiment)
    folder = ensemble.save_index()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (clip := tmp_path / "clip.wav").touch()
    with pytest.raises(InputError, match="--no-captioners would drop"):
        index_job.run(exported, [clip], index_job.Options(captioners=False))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_retrieving_without_captioners_reads_nothing_of_them(
    exported: Path, experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble = Ensemble.load(exported, device="cpu")
    index(ensemble, experiment)
    ensemble.save_index()
    for name in CAPTIONERS:
        shutil.rmtree(exported / "members" / name)
    retrieve.run(exported, "a dog", Searching([], 3, captioners=False))
    assert len(capsys.readouterr().out.splitlines()) == 3
    with pytest.raises(FileNotFoundError, match=CAPTIONERS[0]):
        retrieve.run(exported, "a dog", Searching([], 3))


@pytest.mark.parametrize("options", [[], ["--no-captioners"]])
def test_evaluate_asks_captioners_unless_told_not_to(
    options: list[str], exported: Path, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = read_features([RunDirectory(experiment).features("sounds", SPLIT)])
    frame = clip_frame([(clip, clip, ["a dog barks"], "", "") for clip in clips.clip_ids])

    def caption_all(ensemble: Ensemble, _: list[Path]) -> list[str]:
        index(ensemble, experiment)
        return ["a dog barks"] * CLIPS

    table = CorpusTable(frame, pd.DataFrame(columns=QUARANTINE_COLUMNS))
    monkeypatch.setattr(evaluate, "_usable_clips", lambda *_: table)
    monkeypatch.setattr(evaluation, "_index_and_caption", caption_all)
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", str(exported), "corpus", SPLIT, "--output", str(tmp_path / "values.json"), *options])
    assert ended.value.code == 0
    found = json.loads((tmp_path / "values.json").read_text())
    assert "retrieval" in found
    assert ("retrieval_with_captioners" in found) == (not options)


def test_captioners_of_other_weights_and_lost_codes_are_refused(exported: Path, experiment: Experiment) -> None:
    ensemble = Ensemble.load(exported, device="cpu")
    index(ensemble, experiment)
    folder = ensemble.save_index()
    retrievers, captioners = ensemble._checksums()
    with pytest.raises(CheckpointError, match=f"made with other weights of {CAPTIONERS[0]}; index the files again"):
        AudioIndex.load(folder, retrievers, captioners | {CAPTIONERS[0]: "other"})
    assert not AudioIndex.load(folder, retrievers).kept, "a bundle that does not weigh captioners"
    codes = folder / json.loads((folder / RECORD).read_text())["columns"][CODES]["file"]
    whole = codes.read_bytes()
    codes.write_bytes(whole[:200])
    with pytest.raises(CheckpointError, match="damaged"):
        AudioIndex.load(folder, retrievers, captioners)
    codes.unlink()
    with pytest.raises(CheckpointError, match=f"{codes.name} is not there"):
        AudioIndex.load(folder, retrievers, captioners)


def test_only_columns_that_are_worth_it_are_exported() -> None:
    helped = best().helped(7)
    assert helped == FusionWithCaptioners(
        weights={name: weight for name, weight in HELPED.items() if weight}, normalisation="z", depth=7
    )
    assert best(with_captioners=0.5).helped(7) is None
