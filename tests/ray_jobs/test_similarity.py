"""enclap similarity: the pairs of a small run's untrained retrievers; bad input is named; the run stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from models.errors import TooFewClipsError
from models.files import sha256_of
from models.metrics.retrieval import retrieval_values
from models.retriever.collapse import mean_cosine
from models.retriever.model import Retriever
from ray_jobs.experiment.config import Experiment
from ray_jobs.features.embeddings import weights_checksum, write_embeddings
from ray_jobs.features.files import write_shard
from ray_jobs.reporting import similarity
from ray_jobs.reporting.similarity import similarities_of
from ray_jobs.results.member import MemberMetrics
from ray_jobs.results.similarity import Similarities
from ray_jobs.run.directory import MARKER, NotReadyError, RunDirectory, mark_done

from .conftest import ROOT, command
from .exportable_run import write_exportable_run

CLIPS = 24
TEXTS = 2 * CLIPS
RETRIEVERS = ["wren", "owl"]


@pytest.fixture
def run(tmp_path: Path) -> Experiment:
    """A run with two untrained retrievers and 24 test clips of two captions, in two shards."""
    experiment = write_exportable_run(tmp_path)
    directory = RunDirectory(experiment)
    directory.write_experiment()
    for name in RETRIEVERS:
        learn_a_metric(directory.member(name))
    write_clips(directory, CLIPS)
    return experiment


def learn_a_metric(member: Path) -> None:
    """Replace the metric of an untrained retriever, which is the Euclidean one, by another."""
    retriever = Retriever.load(member)
    with torch.no_grad():
        retriever.metric.factor.copy_(
            torch.rand(retriever.metric.factor.shape, generator=torch.Generator().manual_seed(0))
        )
    retriever.save(member)
    weights = sha256_of(member / "model.safetensors")
    MemberMetrics.read(member).model_copy(update={"weights": weights}).write(member)


def write_clips(directory: RunDirectory, number: int) -> None:
    rng = np.random.default_rng(0)
    clips: list[dict[str, Any]] = [
        {
            "clip_id": f"c{clip}", "path": f"c{clip}.flac", "freesound_id": "", "youtube_id": "", "audio_sha256": "",
            "duration_s": 0.5, "captions": [f"sound {clip}", f"a dog barks {clip} times"],
            "codes": rng.integers(0, 9, (12, 2)), "log_mel": rng.normal(size=(40 + clip, 32)),
        }
        for clip in range(number)
    ]  # fmt: skip
    for split in ("train", "validation", "test"):
        for at in range(0, number, 16):
            shard = directory.features("soundscapes", split) / f"{at // 16:05d}.arrow"
            write_shard(shard, clips[at : at + 16], {"codec": {"codec": "x"}, "inputs": ""}, 2, 32)
    mark_done(directory.features("soundscapes"), directory.features_inputs())


def brute_force(experiment: Experiment, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the whole matrix of similarities, and the embeddings of texts and audio."""
    directory = RunDirectory(experiment)
    retriever = Retriever.load(directory.member(name))
    shards = sorted(directory.features("soundscapes", "test").glob("*.arrow"))
    frame = pd.concat([pd.read_feather(shard) for shard in shards])
    audio = retriever.audio_embeddings([np.stack(row).astype(np.float32) for row in frame["log_mel"]])
    text = retriever.text_embeddings([caption for captions in frame["captions"] for caption in captions])
    return retriever.similarity(text, audio), text, audio


def test_values_are_those_of_the_whole_matrix(run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "BLOCK_CELLS", 5 * CLIPS)
    monkeypatch.setattr(similarity, "TEXTS_AT_ONCE", 7)
    found = similarities_of(run)
    assert [one.retriever for one in found.retrievers] == RETRIEVERS
    assert (found.split, found.clips, found.texts) == ("test", CLIPS, TEXTS)
    target = np.repeat(np.arange(CLIPS), 2)
    right = target[:, None] == np.arange(CLIPS)
    for one in found.retrievers:
        matrix, text, audio = brute_force(run, one.retriever)
        assert one.auc == pytest.approx(roc_auc_score(right.ravel(), matrix.ravel()), abs=1e-3)
        ranks = retrieval_values(matrix, target).ranks
        assert one.auc_of_query == pytest.approx((1 - (ranks - 1) / (CLIPS - 1)).mean(), abs=1e-3)
        assert one.matched_mean == pytest.approx(matrix[right].mean(), abs=1e-4)
        assert one.mismatched_mean == pytest.approx(matrix[~right].mean(), abs=1e-4)
        assert one.text_cosine == pytest.approx(mean_cosine(text), abs=1e-4)
        assert one.audio_cosine == pytest.approx(mean_cosine(audio), abs=1e-4)
        assert sum(one.histogram.matched) == TEXTS
        assert sum(one.histogram.mismatched) == TEXTS * (CLIPS - 1)
        assert sum(one.occurrences) == CLIPS
        assert sum(times * clips for times, clips in enumerate(one.occurrences)) == 10 * TEXTS
        assert one.anti_hubs == pytest.approx(one.occurrences[0] / CLIPS)


def test_kept_embeddings_are_taken_and_nothing_is_written(run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory(run)
    before = everything(directory.root)
    made = similarities_of(run)
    assert everything(directory.root) == before
    for name in RETRIEVERS:
        member = directory.member(name)
        split = directory.features("soundscapes", "test")
        write_embeddings(split, name, weights_checksum(member), partial(Retriever.load, member))
    monkeypatch.setattr(Retriever, "audio_embeddings", None)
    assert similarities_of(run) == made


def everything(root: Path) -> dict[str, int]:
    return {str(path): os.stat(path).st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_table_csv_json_and_chart(run: Experiment, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    root, csv, plot = str(RunDirectory(run).root), tmp_path / "s.csv", tmp_path / "s.svg"
    assert command("similarity", root, "--csv", str(csv), "--plot", str(plot)) == 0
    shown = capfdbinary.readouterr().out.decode()
    assert "small (seed 0, trained by commit" in shown
    assert "test split of soundscapes (soundscapes): 48 texts, each with its clip and with the other 23" in shown
    frame = pd.read_csv(csv).set_index("retriever")
    rows = [line.split() for line in shown.splitlines() if line.split()[:1] == ["owl"]]
    assert rows[0][1] == f"{frame['auc']['owl']:.3f}"
    assert rows[1][2] == f"{frame['anti_hubs']['owl']:.1%}"
    assert (frame["clips"] == CLIPS).all()
    texts = "".join(ElementTree.parse(plot).getroot().itertext())
    assert f"similarity by owl; AUC {frame['auc']['owl']:.3f}" in texts
    assert "at least so often among the 10 nearest of 48 texts" in texts
    assert command("similarity", root, "--json") == 0
    found = Similarities.model_validate(json.loads(capfdbinary.readouterr().out))
    assert [one.auc for one in found.retrievers] == pytest.approx(frame["auc"].tolist())


def test_a_collapse_is_told(
    run: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Retriever, "text_embeddings", lambda self, texts: np.ones((len(texts), 8), np.float32))
    monkeypatch.setattr(Retriever, "audio_embeddings", lambda self, clips: np.eye(len(clips), 8, dtype=np.float32))
    monkeypatch.setattr(Retriever, "under_metric", lambda self, embeddings: embeddings)
    assert command("similarity", str(RunDirectory(run).root)) == 0
    assert "owl: the embeddings of texts are all but alike (mean cosine 1.000" in capsys.readouterr().err


def test_bad_input_is_named(run: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = RunDirectory(run)
    assert command("similarity", str(tmp_path / "nowhere")) == 2
    assert "nowhere/experiment.yaml: no such file" in capsys.readouterr().err
    assert command("similarity", str(directory.root), "--csv", "-", "--json") == 2
    (directory.member("owl") / MARKER).unlink()
    with pytest.raises(NotReadyError, match=r"owl does not exist yet; run `enclap train` on the file of small"):
        similarities_of(run)
    (directory.features("soundscapes") / MARKER).unlink()
    with pytest.raises(NotReadyError, match=r"run `enclap prepare`"):
        similarities_of(run)


def test_one_clip_has_no_mismatched_pair(run: Experiment) -> None:
    directory = RunDirectory(run)
    for shard in directory.features("soundscapes").rglob("*.arrow"):
        shard.unlink()
    write_clips(directory, 1)
    with pytest.raises(TooFewClipsError, match="has one test clip"):
        similarities_of(run)


def test_no_ray_is_started(run: Experiment) -> None:
    code = "import sys, ray; from ray_jobs.similarity import run; run(sys.argv[1]); assert not ray.is_initialized()"
    subprocess.run([sys.executable, "-c", code, str(RunDirectory(run).root)], check=True, cwd=ROOT, timeout=300)
