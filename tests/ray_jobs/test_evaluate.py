"""What evaluate does beyond the pipeline's test: relevance files, and corpora too large for memory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from corpora.table import QUARANTINE_COLUMNS, CorpusTable, clip_frame
from models.ensemble.manifest import read_manifest
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.errors import CorpusError
from models.metrics.retrieval import NONE, flatten_captions, relevant_of, retrieval_values, retrieval_values_in_blocks
from models.retriever.model import negative_distances
from ray_jobs.evaluate import Relevance, run
from ray_jobs.fluency import _trained_on
from ray_jobs.inference import ranking
from ray_jobs.inference.ranking import embed_texts, on_device, padded, ranking_values, rows_of
from tests.small_bundle import write_bundle, write_sounds

FUSION = RetrievalFusion(weights={"a": 0.7, "b": 0.3})


def split_of(names: list[str], set_aside: list[str]) -> CorpusTable:
    clips = clip_frame([(name, f"/audio/{name}", ["rain"], "", "") for name in names])
    lost = [(name, f"/audio/{name}", "empty") for name in set_aside]
    return CorpusTable(clips, pd.DataFrame(lost, columns=list(QUARANTINE_COLUMNS)))


def test_a_relevance_file_is_checked_before_anything_is_computed(tmp_path: Path) -> None:
    path = tmp_path / "relevance.csv"
    path.write_text("query,audio_filenames\nrain,\"['d.wav', 'lost.wav']\"\ndog,['a.wav']\n")
    found = Relevance(path, "all").read(split_of(["a.wav", "d.wav"], ["lost.wav"]))
    assert list(found.right) == ["rain", "dog"]
    with pytest.raises(CorpusError, match=r"line 2: 'lost\.wav' is not among the 2 clips of the split"):
        Relevance(path, "all").read(split_of(["a.wav", "d.wav"], []))


def test_a_bundle_that_says_nothing_of_its_provenance_is_evaluated(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    assert read_manifest(bundle).provenance == {}
    sounds = write_sounds(tmp_path / "test", 2)
    rows = [f"{path.name},a dog barks,rain falls\n" for path in sounds]
    (tmp_path / "test.csv").write_text("".join(["file_name,caption_1,caption_2\n", *rows]))
    run(bundle, tmp_path, "test", tmp_path / "values.json")
    assert json.loads((tmp_path / "values.json").read_text())["bundle_commit"] is None


@pytest.mark.parametrize(
    ("provenance", "corpora"),
    [
        ({}, None),
        ({"members": {"fluency": {"epochs": None}}}, None),
        ({"members": {"fluency": {"epochs": 2}}, "corpora": {"a": {"kind": "clotho"}}}, {"a": "clotho"}),
        ({"members": {"fluency": {"epochs": 0}}}, {}),
    ],
)
def test_what_a_detector_was_trained_on_may_be_unknown(
    provenance: dict[str, Any], corpora: dict[str, str] | None
) -> None:
    assert _trained_on(provenance, "fluency") == corpora


def test_queries_whose_clips_could_not_be_read_are_left_out() -> None:
    right = {"rain": {"d.wav": 1, "a.wav": 1}, "dog": {"lost.wav": 2}, "sea": {"b.wav": 3, "lost.wav": 3}}
    rows = rows_of(right, ["a.wav", "b.wav", "d.wav"])
    assert rows == {"rain": [2, 0], "sea": [1]}
    assert padded(rows.values()).tolist() == [[2, 0], [1, NONE]]


def test_in_parts_as_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    captions = [[f"{clip} {number}" for number in range(5)] for clip in range(30)]
    queries, target = flatten_captions(captions)
    of_text = {name: dict(zip(queries, rng.normal(size=(150, 16)).astype(np.float32))) for name in "ab"}
    clips = {name: rng.normal(size=(30, 16)).astype(np.float32) for name in "ab"}
    asked: list[int] = []

    def embed(texts: list[str]) -> dict[str, np.ndarray]:
        asked.append(len(texts))
        return {name: np.stack([rows[text] for text in texts]) for name, rows in of_text.items()}

    whole = embed(queries)
    asked.clear()
    monkeypatch.setattr(ranking, "TEXTS_AT_ONCE", 64)
    monkeypatch.setattr("models.metrics.retrieval.BLOCK_CELLS", 400)
    texts = embed_texts(embed, queries, tmp_path)
    assert asked == [64, 64, 22]
    assert all(isinstance(rows, np.memmap) for rows in texts.values())
    similarity = FUSION.join({name: negative_distances(whole[name], clips[name]) for name in "ab"})
    forwards = ranking_values(FUSION, texts, clips, target[:, None])
    assert forwards == retrieval_values(similarity, target).corpus
    backwards = retrieval_values_in_blocks(lambda rows: similarity.T[rows], relevant_of(target, 30), 150)
    assert ranking_values(FUSION, clips, texts, relevant_of(target, 30)) == pytest.approx(backwards.corpus)


@pytest.mark.parametrize(("free", "device"), [(2 * 4 * 30 * 8, "cuda"), (2 * 4 * 30 * 8 - 2, "cpu")])
def test_answers_stay_on_the_gpu_where_they_fit(free: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    with FakeTensorMode(allow_non_fake_inputs=True):
        placed = on_device({"a": np.zeros((30, 8), np.float32)}, torch.device("cuda"))
    assert placed["a"].device.type == device
