"""The retrievers as an encoder of sentence-transformers' kind: similarities are the ensemble's, also in mteb."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from models import Ensemble
from models.codec.base import load_codec
from models.ensemble.checksums import write_sums
from models.ensemble.manifest import MANIFEST
from models.ensemble.mteb_encoder import MtebEncoder
from models.ensemble.sentence_encoder import SentenceEncoder
from models.errors import InputError
from models.retriever.model import Retriever
from tests.small_bundle import LOG_MEL, small_members, write_bundle, write_sounds

QUERIES = ["a dog barks twice", "rain falls on the roof", "a bell rings"]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_sounds(tmp_path_factory.mktemp("sounds"), 4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle of two retrievers that differ, weighed unlike."""
    bundle = write_bundle(tmp_path_factory.mktemp("exported") / "bundle")
    second = small_members(load_codec("dac-soundscapes-16khz", 2), LOG_MEL)["retriever"]
    assert isinstance(second, Retriever)
    with torch.no_grad():
        second.metric.factor.mul_(torch.linspace(0.5, 3, 8)[:, None])
        for parameter in second.text_projection.parameters():
            parameter.mul_(-1.5)
    second.save(bundle / "members" / "second")
    return bundle


def fused(bundle: Path, normalisation: str, **weights: float) -> Path:
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    manifest["retrievers"] = list(weights)
    manifest["captioners"] = {} if "second" in weights else manifest["captioners"]
    manifest["retrieval"] = {"weights": weights, "normalisation": normalisation, "rrf_k": 60.0}
    (bundle / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    write_sums(bundle, [str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()])
    return bundle


@pytest.mark.parametrize("normalisation", ["none", "z", "rank", "rrf"])
def test_similarities_are_those_of_the_ensemble(exported: Path, sounds: list[Path], normalisation: str) -> None:
    bundle = fused(exported, normalisation, retriever=0.7, second=0.3)
    ensemble, encoder = Ensemble.load(bundle, device="cpu"), SentenceEncoder.load(bundle, device="cpu")
    ensemble.index(sounds)
    texts, audio = encoder.encode(QUERIES), encoder.encode(list(sounds))
    assert texts.shape == (3, encoder.get_embedding_dimension()) == (3, 16)
    found = encoder.similarity(texts, audio)
    np.testing.assert_allclose(found, ensemble.similarity(QUERIES), atol=1e-5)
    if normalisation == "none":
        pairs = encoder.similarity_pairwise(texts, audio[:3])
        np.testing.assert_allclose(pairs, np.diag(found[:, :3]), atol=1e-5)
        # a sum of distances: no Euclidean distance of all parts together, however they are scaled
        scaled = [np.hstack([0.7 * rows[:, :8], 0.3 * rows[:, 8:]]) for rows in (texts, audio)]
        together = -np.linalg.norm(scaled[0][:, None] - scaled[1][None], axis=-1)
        assert np.abs(together - found.numpy()).max() > 0.01
    else:
        with pytest.raises(InputError, match=rf"normalised \({normalisation}\) over all documents of a query"):
            encoder.similarity_pairwise(texts, audio[:3])


def test_with_one_retriever_it_is_the_euclidean_distance(exported: Path, sounds: list[Path]) -> None:
    encoder = SentenceEncoder.load(fused(exported, "none", retriever=1.0), device="cpu")
    texts, audio = encoder.encode(QUERIES), encoder.encode(list(sounds))
    distances = np.linalg.norm(texts[:, None] - audio[None], axis=-1)
    np.testing.assert_allclose(encoder.similarity(texts, audio), -distances, atol=1e-5)


def test_audio_may_come_in_every_form_and_beside_texts(exported: Path, sounds: list[Path]) -> None:
    encoder = SentenceEncoder.load(fused(exported, "none", retriever=0.7, second=0.3), device="cpu")
    samples, rate = soundfile.read(sounds[0], dtype="float32")
    forms: list[Any] = [
        sounds[0], str(sounds[0]), sounds[0].read_bytes(), io.BytesIO(sounds[0].read_bytes()), (samples, rate),
        {"array": samples, "sampling_rate": rate},
    ]  # fmt: skip
    mixed = encoder.encode([QUERIES[0], *forms, QUERIES[1]], batch_size=4)
    for row in mixed[2:-1]:
        np.testing.assert_allclose(row, mixed[1], atol=1e-5)
    np.testing.assert_allclose(encoder.encode(QUERIES[0]), mixed[0], atol=1e-5)
    np.testing.assert_allclose(encoder.encode_query(QUERIES[1]), mixed[-1], atol=1e-5)
    tensor = encoder.encode_document(sounds[0], convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(tensor, mixed[1], atol=1e-5)
    assert encoder.encode([]).shape == (0, 16)
    assert encoder.encode("rain " * 1000).shape == (16,), "no name of a file is that long"


def test_what_cannot_be_encoded_or_compared_is_refused(exported: Path, sounds: list[Path]) -> None:
    encoder = SentenceEncoder.load(fused(exported, "none", retriever=0.7, second=0.3), device="cpu")
    for wrong in (3, None, {"array": [0.1]}, {"sound": sounds[0]}):
        with pytest.raises(InputError, match="expected a text, a path"):
            encoder.encode([wrong])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"found embeddings \[1, 3\], expected \[N, 16\]"):
        encoder.similarity(np.zeros((1, 3)), np.zeros((1, 16)))


def test_a_batch_of_mteb_has_one_modality(exported: Path) -> None:
    model = MtebEncoder(fused(exported, "none", retriever=0.7, second=0.3), device="cpu")
    for columns in ({"text": ["rain"], "audio": [b""]}, {"image": [None]}):
        with pytest.raises(InputError, match="expected one of `text` and `audio`"):
            model.encode([columns])


def test_mteb_evaluates_it_offline(exported: Path, sounds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    mteb = pytest.importorskip("mteb")
    from .mteb_task import sounds_task

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    bundle = fused(exported, "z", retriever=0.7, second=0.3)
    model = MtebEncoder(bundle, device="cpu")
    ensemble = Ensemble.load(bundle, device="cpu")
    ensemble.index(sounds)
    best = ensemble.similarity(QUERIES).argsort(axis=1)[:, ::-1]
    # the second best of each query is the right one: every reciprocal rank is a half
    task = sounds_task(QUERIES, sounds, right=best[:, 1].tolist())
    results = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    (scores,) = results[0].scores["test"]
    assert scores["mrr_at_10"] == pytest.approx(0.5)
    assert scores["recall_at_1"] == 0
    assert results.model_name == "enclap/ensemble"
