"""The report's page of a tiny run directory, made with what the other jobs write theirs with."""

from __future__ import annotations

import base64
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from models.ensemble.candidate_table import CandidateTable
from models.ensemble.scores.base import MemberNames
from models.ensemble.scores.registry import score_columns
from models.selection.reranking_weights import MIXTURE
from ray_jobs import report
from ray_jobs.combine import write_candidates, write_ranking
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features.files import write_shard
from ray_jobs.reporting import members, searches, systems
from ray_jobs.reporting.clips import CLIPS, pick_clips
from ray_jobs.reporting.page import number
from ray_jobs.results.best import SearchRecord
from ray_jobs.results.member import MemberMetrics
from ray_jobs.results.metrics import CAPTION_VALUES, RETRIEVAL_VALUES, Systems
from ray_jobs.run.cuts import Cut
from ray_jobs.run.directory import NotReadyError, RunDirectory, mark_done

from .example_results import best_reranking, best_retrieval, best_sampling, ensemble_metrics

SMOKE = Path(__file__).parents[2] / "experiments" / "smoke.yaml"
HOSTILE = 'a dog <script>alert(1)</script> barks & $x^2$ "twice"'
TEST_CLIPS = 10
CLIP_ID = "test-{:05d}"
SAID = ("a dog barks quickly while rain falls", "a </script> meows")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, str]:
    """The experiment and its page."""
    experiment = load_experiment(SMOKE, [f"storage_path={tmp_path_factory.mktemp('runs')}"])
    write_run(experiment)
    report.run(experiment)
    return experiment, (RunDirectory(experiment).report / "index.html").read_text(encoding="utf-8")


def write_run(experiment: Experiment, clips: int = TEST_CLIPS) -> None:
    """Write what the jobs before `report` leave behind."""
    directory, rng = RunDirectory(experiment), np.random.default_rng(0)
    captions = [[f"sound {clip} in wording {n}" for n in range(3)] for clip in range(clips)]
    captions[0][0] = HOSTILE
    write_features(experiment, directory, captions, rng)
    for name in experiment.members:
        write_member(experiment, directory.member(name), name, rng)
    write_search(experiment, directory, rng)
    write_ensemble(experiment, directory, captions, rng)
    mark_done(directory.ensemble, directory.search_inputs())


def write_features(
    experiment: Experiment, directory: RunDirectory, captions: list[list[str]], rng: np.random.Generator
) -> None:
    rows, mels = [], experiment.features.log_mel.n_mels
    (directory.root / "audio").mkdir(parents=True)
    for clip, texts in enumerate(captions):
        path = directory.root / "audio" / f"clip {clip}.wav"
        tone = 0.3 * np.sin(np.arange(22_050) * 0.02 * (clip + 1))
        soundfile.write(path, np.stack([tone, tone], 1), 22_050)
        arrays = {"codes": np.zeros((5, 2), np.int16), "log_mel": rng.normal(-40, 20, (31, mels)).astype(np.float16)}
        ids = {"clip_id": CLIP_ID.format(clip), "freesound_id": "", "youtube_id": "", "audio_sha256": ""}
        rows.append({**ids, "path": str(path), "captions": texts, "duration_s": 1.0, **arrays})
    (directory.root / "audio" / f"clip {len(captions) - 1}.wav").unlink()
    features = directory.features(experiment.target_corpus)
    write_shard(features / "test" / "00000.arrow", rows, {"codec": {"name": "x"}, "quarantine": []}, 2, mels)
    bad = [(f"bad-{n}", f"/x/bad-{n}.wav", "cannot be decoded as audio <b>") for n in range(23)]
    pd.DataFrame(bad, columns=["clip_id", "path", "reason"]).to_parquet(features / "quarantine.parquet")


def write_member(experiment: Experiment, path: Path, name: str, rng: np.random.Generator) -> None:
    kind, epochs = experiment.members[name].kind, 6 if experiment.members[name].epochs else 0
    monitor = {"retriever": "map@10", "captioner": "caption_loss", "fluency-detector": "f1"}[kind]
    history = pd.DataFrame({"epoch": range(1, 7), "seconds": 2.0, "learning_rate": 1e-3})
    history["train_loss"] = 3 / history["epoch"] + rng.uniform(0, 0.2, 6)
    history[monitor] = rng.uniform(0.1, 0.9, 6)
    if not epochs:  # published weights, with their values alone
        history = pd.DataFrame({"epoch": [0], "seconds": 0.0, monitor: 0.75})
    path.mkdir(parents=True)
    history.to_parquet(path / "history.parquet")
    best = {str(value): number for value, number in history.iloc[4 if epochs else 0].to_dict().items()}
    MemberMetrics(
        member=name,
        kind=kind,
        split="validation",
        chosen_by=monitor,
        epochs=epochs,
        best=best,
        kept_epochs=[5 if epochs else 0],
        parameters=1_234_567,
        seconds=12.0,
        seed=0,
        commit="unknown",
    ).write(path)


def write_search(experiment: Experiment, directory: RunDirectory, rng: np.random.Generator) -> None:
    trials = pd.DataFrame({"temperature": rng.uniform(0.2, 1, 12), "top_p": rng.uniform(0.7, 1, 12)})
    trials = trials.assign(cider_d=rng.uniform(0.2, 0.4, 12), clips=[16] * 9 + [5] * 3)
    surface = trials[:9].assign(tied_with_best=[True, False, False] * 3)
    chosen = trials.iloc[3][["temperature", "top_p"]].to_dict()
    sampling = best_sampling(experiment, **{str(field): value for field, value in chosen.items()})
    _write_search(directory.search("sampling"), sampling, trials=trials, surface=surface)
    reranking = best_reranking(experiment)
    trials = _weightings(list(reranking.weights), rng).assign(cider_d=rng.uniform(0.2, 0.4, 40), **{MIXTURE: "a+b"})
    weight, threshold = (grid.ravel() for grid in np.meshgrid(np.linspace(0, 1, 11), [0.5, 0.9, 1.0]))
    surface = pd.DataFrame({"encoder_weight": weight, "fluency_threshold": threshold})
    surface = surface.assign(cider_d=weight, tied_with_best=weight > 0.65)
    _write_search(directory.search("reranking"), reranking, trials=trials, surface=surface)
    retrieval = best_retrieval(experiment)
    trials = _weightings(list(retrieval.weights), rng).assign(**{"map@10": rng.uniform(0.2, 0.4, 40)})
    trials = trials.assign(tied_with_best=rng.random(40) < 0.5)
    _write_search(directory.search("retrieval"), retrieval, trials=trials)


def _weightings(names: list[str], rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(rng.dirichlet(np.ones(len(names)), 40).round(1), columns=names)


def _write_search(path: Path, best: SearchRecord, **frames: pd.DataFrame) -> None:
    best.write(path)
    for name, frame in frames.items():
        frame.to_parquet(path / f"{name}.parquet")


def write_ensemble(
    experiment: Experiment, directory: RunDirectory, captions: list[list[str]], rng: np.random.Generator
) -> None:
    """The chosen candidate has the lowest score of all, and is the only one that the fluency filter leaves."""
    captioners, retrievers = experiment.of_kind("captioner"), experiment.of_kind("retriever")
    clips, shape = range(len(captions)), (len(captions), 8)
    columns = score_columns(MemberNames(retrievers, captioners, captioners))
    chosen = np.arange(8) == 7
    directory.ensemble.mkdir()
    table = CandidateTable(
        texts=[[HOSTILE, *(f"sound {clip} candidate {number}" for number in range(1, 8))] for clip in clips],
        captioners=[[captioners[number % 2] for number in range(8)] for _ in clips],
        tokens=[[6] * 8 for _ in clips],
        mask=np.ones(shape, bool),
        scores={column: rng.normal(size=shape) - 99 * chosen for column in columns},
        fluency_error=np.where(chosen, 0.1, rng.uniform(0.91, 1, shape)),
    )
    clip_ids = [CLIP_ID.format(clip) for clip in clips]
    write_candidates(directory.ensemble, clip_ids, table, best_reranking(experiment))
    queries = [text for texts in captions for text in texts]
    similarity = rng.normal(size=(len(queries), len(captions)))
    write_ranking(directory.ensemble, queries, similarity, [f"clip {clip}.wav" for clip in clips])
    metrics = ensemble_metrics(experiment, len(captions))
    metrics.write(directory.ensemble)
    said = [
        {"system": system, "clip_id": clip_id, "caption": SAID[number % 2], "cider_d": number + clip / 10}
        for number, system in enumerate(metrics.captioning)
        for clip, clip_id in enumerate(clip_ids)
    ]
    pd.DataFrame(said).to_parquet(directory.ensemble / CAPTION_VALUES)
    found = [{"system": "ensemble", "clip_id": clip_id, "map@10": 0.5} for clip_id in clip_ids for _ in range(3)]
    pd.DataFrame(found).to_parquet(directory.ensemble / RETRIEVAL_VALUES)


class _Tags(HTMLParser):
    """All start tags, and those that are open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags_of(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    return parser.tags


def test_nothing_is_fetched_from_elsewhere(built: tuple[Experiment, str]) -> None:
    _, page = built
    for tag, attributes in tags_of(page):
        assert tag != "script"
        for key in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(key) or "#").startswith(("data:", "#", "clips.html")), (tag, key)
    assert not re.search(r"url\((?!#)|@import", page)


def test_systems_intervals_and_banner_are_there(built: tuple[Experiment, str]) -> None:
    experiment, page = built
    for name in experiment.of_kind("captioner"):
        assert f">{name}/beam<" in page
        assert f">{name}/rerank<" in page
    for name in experiment.members:
        assert f">{name}<" in page
    assert "−0.030 to +0.041" in page
    board = page[page.index('aria-label="Leaderboard of captioning"') : page.index("<h3>Captioning</h3>")]
    assert board.count(">ensemble<") == 2, "of captioning and of retrieval"
    assert "these scores say nothing about Clotho or AudioCaps" in page
    assert "SPICE: needs Java 8 to 13" in page
    assert "It flags 12.5 %" in page
    assert "remove verb" in page
    assert "0123456789ab" in page
    assert "23 clips" in page
    assert "bad-19<" in page
    assert "bad-20<" not in page


def test_searches_say_what_their_choice_is_worth(built: tuple[Experiment, str]) -> None:
    _, page = built
    section = page[page.index('id="search"') : page.index('id="clips"')]
    assert section.count("<td>0.380</td>") == 3
    assert "90 % of the trials" in page
    assert "the 36 % of settings that the clips cannot tell from the best" in page
    assert "Encoder weight and fluency threshold" in page
    assert "−0.013 to +0.138" in page or "−0.012 to +0.138" in page
    # over the sampling trials and over the reranking weights
    assert page.count(">paper<") == 2
    assert page.count(">best<") == 2


def test_a_negative_weight_lies_left_of_zero_and_scores_without_a_weight_are_not_shown(tmp_path: Path) -> None:
    experiment = load_experiment(SMOKE, [f"storage_path={tmp_path}"])
    write_run(experiment)
    found = best_reranking(experiment)
    weights = dict.fromkeys(found.weights, 0.0) | {"decoder": 0.75, "retriever-bert": -0.25}
    found.model_copy(update={"weights": weights}).write(RunDirectory(experiment).search("reranking"))
    report.run(experiment)
    page = (RunDirectory(experiment).report / "index.html").read_text(encoding="utf-8")
    assert 'style="--zero: 25.0%"' in page
    bars = re.findall(r'<dt>([^<]*)</dt><dd><span class="track"><i style="([^"]*)"></i></span>', page)
    of_reranking = dict(bars[:2])  # those of retrieval come later
    assert of_reranking["retriever-bert"] == "left: 0.0%; width: 25.0%"
    assert of_reranking["decoder"] == "left: 25.0%; width: 75.0%"
    assert "2 others have no weight." in page
    table = re.search(r'aria-label="Candidates of .*?</thead>', page, re.DOTALL)
    assert table
    scores = re.findall(r'<th scope="col">([^<]*)</th>', table[0])
    assert scores == ["rank", "total", "retriever-bert", "decoder", "fluency error"]
    captioners = experiment.of_kind("captioner")
    left = len(score_columns(MemberNames(experiment.of_kind("retriever"), captioners, captioners))) - 2
    assert f"the other {left} are columns of <code>ensemble/candidates.parquet</code>" in page


def test_a_filter_that_changes_nothing_is_said_in_a_line(built: tuple[Experiment, str]) -> None:
    experiment, page = built
    assert "The fluency filter changes no choice on validation." in page
    metrics = ensemble_metrics(experiment)
    same = metrics.captioning_details.model_copy(update={"unfiltered": metrics.captioning["ensemble"]})
    assert not systems.tables(metrics.model_copy(update={"captioning_details": same}))["filter"].rows
    other = metrics.captioning_details.model_copy(update={"unfiltered": {"cider_d": 0.1}})
    assert systems.tables(metrics.model_copy(update={"captioning_details": other}))["filter"].rows


def test_captions_are_escaped(built: tuple[Experiment, str]) -> None:
    _, page = built
    assert "<script" not in page
    assert "audio <b>" not in page
    assert escape(HOSTILE).replace("&quot;", "&#34;") in page


def test_clips_can_be_heard_and_seen(built: tuple[Experiment, str]) -> None:
    _, page = built
    tags = tags_of(page)
    players = [attributes["src"] or "" for tag, attributes in tags if tag == "audio"]
    assert len(players) + page.count("no longer where it was") == CLIPS
    audio = base64.b64decode(players[0].removeprefix("data:audio/mpeg;base64,"))
    assert audio[:3] == b"ID3" or audio[0] == 0xFF
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == CLIPS
    assert all(picture["alt"] for picture in pictures)
    assert page.count("(chosen)") == CLIPS
    assert page.count("(filtered out)") == 5 * CLIPS
    assert len(page) < 3 * 2**20


def test_ids_are_unique(built: tuple[Experiment, str]) -> None:
    ids = [attributes["id"] for _, attributes in tags_of(built[1]) if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_second_run_keeps_the_page(built: tuple[Experiment, str]) -> None:
    path = RunDirectory(built[0]).report / "index.html"
    before = path.stat().st_mtime_ns
    report.run(built[0])
    assert path.stat().st_mtime_ns == before


def test_without_an_ensemble_the_message_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="enclap combine"):
        report.run(load_experiment(SMOKE, [f"storage_path={tmp_path}"]))


def test_a_corpus_of_recordings_has_no_banner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "_forest", lambda *_: "")  # charts are slow, and looked at above
    monkeypatch.setattr(members, "_training_curve", lambda *_: "")
    for chart in ("_sampling_chart", "_reranking_map", "_triangle", "_reach"):
        monkeypatch.setattr(searches, chart, lambda *_: "")
    folder = "{kind: folder, root: x, splits: [train, validation, test]}"
    experiment = load_experiment(SMOKE, [f"storage_path={tmp_path}", f"corpora.soundscapes={folder}"])
    write_run(experiment, clips=3)
    report.run(experiment)
    page = (RunDirectory(experiment).report / "index.html").read_text(encoding="utf-8")
    assert "synthetic" not in page
    assert page.count("<article") == 3


def test_searches_of_an_earlier_version_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 0.1 named a column of its tables `indifferent`."""
    for chart in ("_sampling_chart", "_reranking_map", "_triangle", "_reach"):
        monkeypatch.setattr(searches, chart, lambda *_: "")
    experiment = load_experiment(SMOKE, [f"storage_path={tmp_path}"])
    directory = RunDirectory(experiment)
    write_search(experiment, directory, np.random.default_rng(0))
    now = searches.searches(experiment, directory)
    for table in (tmp_path / "smoke" / "search").rglob("*.parquet"):
        pd.read_parquet(table).rename(columns={"tied_with_best": "indifferent"}).to_parquet(table)
    assert searches.searches(experiment, directory) == now
    assert now[1]["tied_share"] == pytest.approx(4 / 11)


def test_picked_clips_are_the_best_the_worst_and_others() -> None:
    values = np.arange(20.0)
    picked = pick_clips(values, np.random.default_rng(0))
    assert [row for row, why in picked if why == "best"] == [19, 18, 17]
    assert [row for row, why in picked if why == "worst"] == [2, 1, 0]
    assert len({row for row, _ in picked}) == 8
    assert picked == pick_clips(values, np.random.default_rng(0))


def test_numbers() -> None:
    assert [number(value) for value in (None, float("nan"), 12345, -0.5)] == ["–", "–", "12\u2009345", "−0.500"]


def test_the_best_of_a_column_is_the_lowest_where_less_is_better() -> None:
    values: Systems = {"a": {"map@10": 0.2, "median_rank": 8.0}, "b": {"map@10": 0.3, "median_rank": 4.0}}
    assert systems.table(values).best == {"map@10": {"b"}, "median_rank": {"b"}}


def test_a_published_detector_has_its_values_and_no_curve(built: tuple[Experiment, str], tmp_path: Path) -> None:
    published = "members.fluency={kind: fluency-detector, checkpoint: echecker.ckpt}"
    experiment = load_experiment(SMOKE, [f"storage_path={tmp_path}", published])
    write_run(experiment)
    report.run(experiment)
    page = (RunDirectory(experiment).report / "index.html").read_text(encoding="utf-8")
    row = re.search(r"<tr><th[^>]*>fluency</th>.*?</tr>", page, re.DOTALL)
    assert row
    assert re.findall(r"<td[^>]*>(.*?)</td>", row[0])[2:4] == ["0", "as published"]
    assert "0.750" in row[0]
    curve, note = "<figure><figcaption>fluency</figcaption>", "On the corpus that it was trained on"
    assert curve not in page
    assert note not in page
    assert "published ones, which were not trained in this run" in page
    assert curve in built[1], "a trained one has them"
    assert note in built[1]


def test_what_a_time_limit_cut_is_said(tmp_path: Path) -> None:
    experiment = load_experiment(SMOKE, [f"storage_path={tmp_path}", "time_limit=1h"])
    write_run(experiment)
    directory = RunDirectory(experiment)
    path, inputs = directory.member("fluency"), directory.member_inputs("fluency")
    MemberMetrics.read(path).model_copy(update={"planned_epochs": 9}).write(path)
    mark_done(path, inputs, **Cut(6, 9, 3600).details())
    mark_done(directory.ensemble, directory.results_inputs())
    report.run(experiment)
    page = (directory.report / "index.html").read_text(encoding="utf-8")
    assert "The time limit cut: fluency: 6 of 9 epochs." in page
    assert "<td>6 of 9</td>" in page
