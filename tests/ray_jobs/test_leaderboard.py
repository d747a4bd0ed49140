"""enclap leaderboard: values, intervals, costs and Pareto marks of a run whose files are made up."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from models.ensemble.candidate_table import CandidateTable
from models.ensemble.scores.base import MemberNames
from models.ensemble.scores.registry import score_columns
from models.errors import InputError
from models.files import write_arrays
from models.metrics.retrieval import retrieval_values
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.leaderboard import _fitting
from ray_jobs.reporting.leaderboard import Entry, read_leaderboard
from ray_jobs.results.best import CaptionerWeights, ColumnCosts
from ray_jobs.results.member import MemberMetrics
from ray_jobs.results.metrics import (
    CAPTION_VALUES,
    RETRIEVAL_VALUES,
    EnsembleMetrics,
    SystemComparison,
    Values,
)
from ray_jobs.results.seconds import SystemSeconds
from ray_jobs.results.some_members import SomeCaptioning, SomeMembersMetrics
from ray_jobs.run.directory import MARKER, NotReadyError, RunDirectory, mark_done, marker
from ray_jobs.training.refit import Refit

from .conftest import ROOT, command
from .example_results import best_reranking, best_retrieval, ensemble_metrics

SIZES = {
    "retriever-bge": 100, "retriever-bert": 50, "retriever-roberta": 10, "captioner-wide": 1000, "captioner-deep": 500,
    "fluency": 7,
}  # fmt: skip
CIDER_D = {
    "captioner-wide/beam": 0.5, "captioner-wide/rerank": 0.6, "captioner-deep/beam": 0.4, "captioner-deep/rerank": 0.3,
    "ensemble": 0.7,
}  # fmt: skip
MAP = {"retriever-bge": 0.2, "retriever-bert": 0.3, "retriever-roberta": 0.1, "ensemble": 0.4}
CLIPS = 12


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that went as far as `combine`; the weight of retriever-bge is 0 in both searches."""
    directory = RunDirectory(load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={tmp_path}"]))
    directory.write_experiment()
    experiment = directory.experiment
    for name, size in SIZES.items():
        write_member(directory, name, parameters=size, seconds=float(size))
    weights = {"retriever-bge": 0.0, "retriever-bert": 0.5, "retriever-roberta": 0.5}
    best_reranking(experiment, weights=weights | {"decoder": 1.0}).write(directory.search("reranking"))
    best_retrieval(experiment, weights=weights).write(directory.search("retrieval"))
    metrics = ensemble_metrics(experiment, CLIPS)
    captioning: dict[str, Values] = {name: {"cider_d": value, "rouge_l": value / 2} for name, value in CIDER_D.items()}
    retrieval: dict[str, Values] = {name: {"map@10": value, "r@1": value / 2} for name, value in MAP.items()}
    metrics.model_copy(update={"captioning": captioning, "retrieval": retrieval}).write(directory.ensemble)
    write_values(directory.ensemble / CAPTION_VALUES, "cider_d", CIDER_D, each=1)
    write_values(directory.ensemble / RETRIEVAL_VALUES, "map@10", MAP, each=5)
    for path in (directory.search("reranking"), directory.ensemble):
        mark_done(path, directory.results_inputs())
    return directory


def write_member(directory: RunDirectory, name: str, parameters: int, seconds: float) -> None:
    MemberMetrics(
        member=name, kind=directory.experiment.members[name].kind, split="validation", chosen_by="map@10", epochs=2,
        best={"epoch": 2, "map@10": 0.25}, kept_epochs=[2], parameters=parameters, seconds=seconds, seed=0, commit="",
    ).write(directory.member(name))  # fmt: skip


def write_values(path: Path, metric: str, means: dict[str, float], each: int) -> None:
    """Write values of single clips, of which each has `each` equal ones, half of the clips above the mean."""
    clips = np.repeat(np.arange(CLIPS), each)
    frames = [
        pd.DataFrame(
            {"system": system, "clip_id": [f"c{clip}" for clip in clips], metric: mean + 0.1 * (-1.0) ** clips}
        )
        for system, mean in means.items()
    ]
    pd.concat(frames).to_parquet(path)


def entries(directory: RunDirectory) -> dict[tuple[str, str], Entry]:
    found = read_leaderboard(directory.experiment, directory)
    return {(entry.task, entry.system): entry for entry in found.entries}


def test_systems_stand_best_first_with_all_that_they_need(run: RunDirectory) -> None:
    found = read_leaderboard(run.experiment, run)
    for task, values in (("captioning", CIDER_D), ("retrieval", MAP)):
        best_first = sorted(values, key=lambda name: -values[name])
        assert [entry.system for entry in found.entries if entry.task == task] == best_first
    rows = entries(run)
    # a beam reads its retriever's embedding; what reranks reads the scores that have a weight, and the filter
    assert rows["captioning", "captioner-wide/beam"].members == ["retriever-bge", "captioner-wide"]
    assert rows["captioning", "captioner-deep/rerank"].members == [
        "retriever-bert", "retriever-roberta", "captioner-deep", "fluency",
    ]  # fmt: skip
    assert rows["captioning", "ensemble"].members == list(SIZES)
    assert rows["retrieval", "ensemble"].members == ["retriever-bert", "retriever-roberta"]
    assert rows["captioning", "captioner-wide/beam"].parameters == 1100
    assert rows["retrieval", "ensemble"].parameters == 60
    assert rows["captioning", "captioner-deep/rerank"].training_s == 50 + 10 + 500 + 7
    kinds = {"captioner-wide/beam": "single beam", "captioner-wide/rerank": "reranked", "ensemble": "ensemble"}
    assert {name: rows["captioning", name].kind for name in kinds} == kinds
    assert rows["retrieval", "ensemble"].kind == "fused"


def test_scores_of_other_members_are_needed_too(run: RunDirectory) -> None:
    """A likelihood needs its captioner, a joint one all of them, and consensus what all of them propose."""
    experiment, wide = run.experiment, ["retriever-bge", "captioner-wide"]
    expected = {
        "decoder": wide,
        "likelihood/captioner-deep": ["retriever-bge", "retriever-bert", "captioner-wide", "captioner-deep"],
        "joint/mean": ["retriever-bge", "retriever-bert", "captioner-wide", "captioner-deep"],
        "consensus/ngram": ["retriever-bge", "retriever-bert", "captioner-wide", "captioner-deep"],
        "rank/retriever-roberta": ["retriever-bge", "retriever-roberta", "captioner-wide"],
    }
    for weight, members in expected.items():
        chosen = {"weights": {weight: 1.0}, "captioners": ["captioner-wide"], "fluency_threshold": 1.0}
        best_reranking(experiment, **chosen).write(run.search("reranking"))
        assert entries(run)["captioning", "ensemble"].members == members, weight


def test_a_captioner_by_itself_is_chosen_from_by_its_own_weights(run: RunDirectory) -> None:
    reranking = best_reranking(run.experiment)
    own = reranking.reranking.model_copy(
        update={"weights": {"retriever-roberta": 1.0}, "captioners": ["captioner-deep"], "fluency_threshold": 1.0}
    )
    reranking.model_copy(update={"alone": {"captioner-deep": own}}).write(run.search("reranking"))
    needed = ["retriever-bert", "retriever-roberta", "captioner-deep"]
    assert entries(run)["captioning", "captioner-deep/rerank"].members == needed


def test_retrieval_with_captioners_needs_them(run: RunDirectory) -> None:
    metrics = EnsembleMetrics.read(run.ensemble)
    metrics.retrieval["ensemble+captioners"] = {"map@10": 0.45}
    metrics.write(run.ensemble)
    weights = {"retriever-bert": 0.5, "captioner-wide/likelihood": 0.5, "retriever-roberta/captions": 0.0}
    best = best_retrieval(run.experiment)
    helped = best.convert(CaptionerWeights, weights=weights, costs=ColumnCosts(seconds_a_query={}, seconds_a_clip={}))
    best.model_copy(update={"with_captioners": helped}).write(run.search("retrieval"))
    assert entries(run)["retrieval", "ensemble+captioners"].members == [
        "retriever-bge", "retriever-bert", "captioner-wide",
    ]  # fmt: skip
    helped.weights["retriever-roberta/captions"] = 0.1
    best.model_copy(update={"with_captioners": helped}).write(run.search("retrieval"))
    found = entries(run)["retrieval", "ensemble+captioners"]
    assert (found.members, found.validation) == (list(SIZES)[:5], None)
    # a column that knows the right clip of every query
    target = np.arange(6)
    columns = {name: np.eye(6, dtype=np.float32) for name in weights if "/" in name}
    retrievers = {name: np.zeros((6, 6), np.float32) for name in MAP if name != "ensemble"}
    write_arrays(run.search("retrieval") / "similarities.npz", {**retrievers, "target": target})
    write_arrays(run.search("retrieval") / "captioner_columns.npz", columns)
    rows = entries(run)
    assert rows["retrieval", "ensemble+captioners"].validation == 1
    assert rows["retrieval", "ensemble"].validation == pytest.approx(1 / 6)


def test_training_counts_what_a_member_started_from(run: RunDirectory, tmp_path: Path) -> None:
    more = load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={tmp_path}"])
    more.members["retriever-start"] = more.members["retriever-bert"].model_copy()
    more.members["retriever-bert"].init_from = "retriever-start"
    directory = RunDirectory(more)
    write_member(directory, "retriever-start", parameters=50, seconds=1e4)
    (row,) = (entry for entry in read_leaderboard(more, directory).entries if entry.system == "retriever-bert")
    assert (row.members, row.parameters, row.training_s) == (["retriever-bert"], 50, 1e4 + 50)


def test_pareto_optimal_systems_are_those_that_no_other_beats(run: RunDirectory) -> None:
    optimal = {key for key, entry in entries(run).items() if entry.pareto}
    assert optimal == {
        # 550 parameters for 0.4, 1100 for 0.5, 1167 for 0.6 and 1667 for 0.7; 567 for 0.3 are too many
        ("captioning", "captioner-deep/beam"),
        ("captioning", "captioner-wide/beam"),
        ("captioning", "captioner-wide/rerank"),
        ("captioning", "ensemble"),
        # 10 for 0.1, 50 for 0.3, 60 for 0.4; 100 for 0.2 are too many
        ("retrieval", "retriever-roberta"),
        ("retrieval", "retriever-bert"),
        ("retrieval", "ensemble"),
    }


def test_seconds_are_added_up_and_count_where_they_are_measured(run: RunDirectory) -> None:
    assert {entry.seconds for entry in entries(run).values()} == {None}, "earlier versions did not measure them"
    metrics = EnsembleMetrics.read(run.ensemble)
    beams = {"captioner-wide/beam": 9.0, "captioner-deep/beam": 1.0, "captioner-wide/rerank": 0.5, "ensemble": 4.0}
    embedding = {"retriever-bge": 0.25, "retriever-bert": 0.5, "retriever-roberta": 0.125}
    measured = SystemSeconds(clips=16, embedding=embedding, captioning=beams)
    measured.write(run.ensemble)
    rows = entries(run)
    assert rows["captioning", "captioner-wide/beam"].seconds == 9.25
    assert rows["captioning", "ensemble"].seconds == 4 + 0.875
    assert rows["captioning", "captioner-deep/rerank"].seconds is None
    assert rows["retrieval", "ensemble"].seconds == 0.625
    metrics.captioning["captioner-wide/beam"]["cider_d"] = 0.6
    metrics.captioning["ensemble"]["cider_d"] = 0.55
    metrics.write(run.ensemble)
    again = entries(run)
    assert not again["captioning", "ensemble"].pareto
    assert again["captioning", "captioner-wide/rerank"].pareto, "more parameters, but less time than the beam"
    assert again["captioning", "captioner-wide/beam"].pareto, "slower, but fewer parameters"


def test_ensembles_of_some_members_stand_beside_the_whole(run: RunDirectory) -> None:
    some = ["retriever-bert", "captioner-deep"]
    path = run.ensemble_of(some)
    captioning = SomeCaptioning(
        reranking=best_reranking(run.experiment).reranking,
        cross_validated=0.5,
        values={"cider_d": 0.55, "rouge_l": 0.25},
        comparison=SystemComparison(metric="cider_d", a="these members", b="ensemble", delta=0.0, ci95=(0.0, 0.0)),
    )
    SomeMembersMetrics(
        members=some, objective="cider_d", split="test", clips=CLIPS, captioning=captioning, retrieval=None
    ).write(path)
    write_values(path / CAPTION_VALUES, "cider_d", {"": 0.55}, each=1)
    assert ("captioning", path.name) not in entries(run), "it is not finished"
    mark_done(path, run.results_inputs())
    entry = entries(run)["captioning", path.name]
    assert (entry.test, entry.kind, entry.members, entry.parameters) == (0.55, "some members", some, 550)
    assert entry.ci95
    assert entry.ci95[0] < 0.55 < entry.ci95[1]
    assert entry.pareto, "better than the beam of the same members, and smaller than what is better"
    assert ("retrieval", path.name) not in entries(run)
    mark_done(path, "an earlier search")
    assert ("captioning", path.name) not in entries(run)


def test_refitted_systems_inherit_their_values(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = run.experiment.model_copy(update={"refit": True})
    before = read_leaderboard(experiment, run).entries
    assert {entry.inherited_from for entry in before} == {None}, "they are not trained yet"
    for name in SIZES:
        mark_done(run.member(name), run.member_inputs(name))
    refit = Refit.read(experiment)
    of_refit = RunDirectory(refit)
    for name, full in refit.names.items():
        write_member(of_refit, full, parameters=SIZES[name] + 1, seconds=1.0)
        mark_done(of_refit.member(full), of_refit.member_inputs(full))
    found = read_leaderboard(experiment, run)
    assert [entry for entry in found.entries if not entry.inherited_from] == before
    rows = {(entry.task, entry.system): entry for entry in found.entries}
    shown = rows["captioning", "captioner-wide_full/beam"]
    assert (shown.inherited_from, shown.test, shown.pareto) == ("captioner-wide/beam", 0.5, False)
    assert (shown.parameters, shown.training_s) == (1102, 2.0)
    assert shown.members == ["retriever-bge_full", "captioner-wide_full"]
    assert rows["retrieval", "ensemble_full"].inherited_from == "ensemble"
    assert found.to_frame()["inherited_from"].count() == len(before)


@pytest.mark.parametrize("width", [80, 120])
def test_a_narrow_terminal_cuts_no_number(run: RunDirectory, width: int) -> None:
    found = read_leaderboard(run.experiment, run, ["rouge_l"])
    table = _fitting("captioning", found.of("captioning"), found, width)
    screen = Console(file=StringIO(), width=width)
    screen.print(table)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= width
    for entry in found.of("captioning"):
        assert entry.ci95
        for number in (f"{entry.test:.3f}", f"{entry.ci95[0]:.3f} to {entry.ci95[1]:.3f}"):
            assert number in shown
    assert ("needs" in shown.splitlines()[1]) == (width > 80)
    assert ("--csv has needs" in shown) == (width == 80)


def test_columns_in_which_no_system_has_anything_take_no_room(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in SIZES:
        (run.member(name) / MemberMetrics.FILE).unlink()
    command("leaderboard", str(run.root), "--extra-metrics", "rouge_l")
    captioning, retrieval = (line.split() for line in capsys.readouterr().out.splitlines() if "test" in line)
    assert captioning == ["captioning", "test", "95", "%", "interval", "ROUGE-L", "needs"]
    assert retrieval == ["retrieval", "test", "95", "%", "interval", "needs"]
    found = read_leaderboard(run.experiment, run)
    assert _fitting("captioning", found.of("captioning"), found, 50).title == "captioning by CIDEr-D (--csv has needs)"


def test_intervals_are_over_clips(run: RunDirectory) -> None:
    rows = entries(run)
    for key, value in {("captioning", "ensemble"): 0.7, ("retrieval", "ensemble"): 0.4}.items():
        interval = rows[key].ci95
        assert interval is not None
        low, high = interval
        assert low < value < high
        # the mean of 12 values 0.1 above or below varies by 0.1 / sqrt(12); the 5 queries of a clip all say the same
        assert high - low == pytest.approx(2 * 1.96 * 0.1 / CLIPS**0.5, rel=0.2)


def test_a_mean_over_clips_is_not_given_for_a_value_of_the_whole_corpus(run: RunDirectory) -> None:
    write_values(run.ensemble / CAPTION_VALUES, "cider_d", {name: value + 0.05 for name, value in CIDER_D.items()}, 1)
    assert entries(run)["captioning", "ensemble"].ci95 is None


def test_validation_values_are_those_of_the_choice_that_search_made(run: RunDirectory) -> None:
    experiment, rng = run.experiment, np.random.default_rng(0)
    sources = ["captioner-wide", "captioner-wide/beam", "captioner-deep", "captioner-deep/beam"]
    shape = (6, len(sources))
    columns = score_columns(MemberNames(experiment.of_kind("retriever")))
    table = CandidateTable(
        texts=[[f"said by {source}" for source in sources]] * 6,
        captioners=[sources] * 6,
        tokens=[[5] * 4] * 6,
        mask=np.ones(shape, bool),
        scores={column: np.tile([0.0, 1.0, 2.0, 3.0], (6, 1)) for column in columns},
        fluency_error=np.zeros(shape),
    )
    values = np.tile([0.1, 0.2, 0.3, 0.4], (6, 1))
    table.to_frame(list("abcdef"), {"cider_d": values}).to_parquet(run.search("reranking") / "candidates.parquet")
    similarities = {name: rng.normal(size=(20, 10)).astype(np.float32) for name in MAP if name != "ensemble"}
    target = np.repeat(np.arange(10), 2)
    write_arrays(run.search("retrieval") / "similarities.npz", {**similarities, "target": target})
    rows = entries(run)
    expected = {"captioner-wide/beam": 0.2, "captioner-wide/rerank": 0.1, "captioner-deep/beam": 0.4, "ensemble": 0.4}
    for system, value in expected.items():
        assert rows["captioning", system].validation == pytest.approx(value), system
    fused = best_retrieval(experiment, weights={"retriever-bert": 0.5, "retriever-roberta": 0.5}).fusion
    for system, ranking in {**similarities, "ensemble": fused.join(similarities)}.items():
        assert rows["retrieval", system].validation == retrieval_values(ranking, target).corpus["map@10"]


def test_what_an_earlier_run_lacks_is_left_open(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    (run.ensemble / RETRIEVAL_VALUES).unlink()
    (run.member("captioner-deep") / MemberMetrics.FILE).unlink()
    rows = entries(run)
    assert rows["retrieval", "ensemble"].ci95 is None
    deep = rows["captioning", "captioner-deep/beam"]
    assert (deep.validation, deep.parameters, deep.training_s, deep.pareto) == (None, None, None, False)
    assert rows["captioning", "captioner-wide/beam"].pareto
    command("leaderboard", str(run.root))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (shown,) = (line for line in lines if line[0] == "captioner-deep/beam")
    assert (shown[1], shown[-4:]) == ("0.400", ["-", "-", "retriever-bert", "captioner-deep"])


def test_csv_on_standard_output_is_all_that_is_there(
    run: RunDirectory, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    arguments = ("leaderboard", str(run.root), "--extra-metrics", "rouge_l,r@1")
    assert command(*arguments, "--csv", "-") == 0
    printed, said = capfdbinary.readouterr()
    frame = pd.read_csv(BytesIO(printed))
    assert list(frame["system"][frame["task"] == "captioning"]) == sorted(CIDER_D, key=lambda name: -CIDER_D[name])
    best = frame.iloc[0]
    assert (best["system"], best["test"], best["test_rouge_l"], best["parameters"]) == ("ensemble", 0.7, 0.35, 1667)
    assert best["members"].split() == list(SIZES)
    assert np.isnan(best["test_r@1"])
    assert frame["test_r@1"].count() == len(MAP)
    assert b"captioning by CIDEr-D" in said
    assert command(*arguments, "--csv", str(tmp_path / "systems.csv")) == 0
    shown = capfdbinary.readouterr().out
    assert (tmp_path / "systems.csv").read_bytes() == printed
    assert b"captioning by CIDEr-D" in shown
    assert b"ROUGE-L" in shown


def test_an_experiment_file_stands_for_its_run(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    storage = f"storage_path={run.root.parent}"
    assert command("leaderboard", str(ROOT / "experiments" / "smoke.yaml"), storage) == 0
    assert "retrieval by mAP@10" in capsys.readouterr().out
    assert command("leaderboard", str(run.root), storage) == 2
    assert "a run is shown as it was made" in capsys.readouterr().err


def test_bad_input_is_named(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"'spice' was not computed in this run: needs Java"):
        read_leaderboard(run.experiment, run, ["spice"])
    with pytest.raises(InputError, match=r"'rougel': expected one that the run has: cider_d, rouge_l, map@10, r@1"):
        read_leaderboard(run.experiment, run, ["rougel"])
    (run.ensemble / "metrics.json").unlink()
    with pytest.raises(NotReadyError, match="run `enclap combine`"):
        read_leaderboard(run.experiment, run)
    assert command("leaderboard", str(run.root / "nowhere")) == 2
    assert "experiment.yaml: no such file" in capsys.readouterr().err


def test_test_values_of_an_earlier_search_are_told(run: RunDirectory) -> None:
    assert not read_leaderboard(run.experiment, run).note
    mark_done(run.search("reranking"), "another search")
    assert "earlier search" in read_leaderboard(run.experiment, run).note
    other = run.experiment.model_copy(update={"seed": 1})
    mark_done(run.search("reranking"), marker(run.ensemble)["inputs"])
    assert "of other settings" in read_leaderboard(other, RunDirectory(other)).note
    (run.ensemble / MARKER).unlink()
    assert not read_leaderboard(run.experiment, run).note


def test_no_model_is_loaded(run: RunDirectory) -> None:
    """Without validation rankings not even torch is imported."""
    code = (
        "import sys; from ray_jobs.leaderboard import run; run(sys.argv[1], [], [], None); "
        "assert not {'torch', 'ray', 'transformers', 'matplotlib'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(run.root)], check=True, cwd=ROOT, timeout=300)
