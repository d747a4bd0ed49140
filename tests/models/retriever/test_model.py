"""The retriever: training lowers the loss, batches do not matter, files round-trip, for every tokenizer kind."""

import copy
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.encoders.log_mel import pad_log_mels
from models.encoders.text import TextEncoder
from models.files import CheckpointError
from models.retriever.model import Retriever
from models.settings import AudioEncoderConfig, LogMelConfig, RetrieverConfig, RetrieverSettings, TextEncoderConfig

from ..conftest import CAPTIONS, published_text_encoder

KINDS = [("random:bert", "unigram", "cls"), ("random:bert", "wordpiece", "mean"), ("random:roberta", "bpe", "mean")]


def make(name: str, tokenizer: str, pooling: str, **settings: Any) -> Retriever:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    sizes = {**shape, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    text = {"name": name, "tokenizer": tokenizer, "pooling": pooling, "sizes": sizes, "vocab_size": 300}
    audio = {"backbone": "random:convnext", "depths": (1, 1, 1, 1), "dims": (8, 16, 16, 32), "layer_scale": 1.0}
    return Retriever.create(
        RetrieverConfig(
            audio_encoder=AudioEncoderConfig.model_validate(audio),
            text_encoder=TextEncoderConfig.model_validate(text),
            joint_dim=16,
            hidden_dim=32,
            dropout=0.0,
            log_mel=LogMelConfig(n_mels=64),
            **{"epsilon": 0.1, **settings},
        ),
        CAPTIONS,
    )


@pytest.fixture(scope="module")
def log_mels() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(20 * rng.normal(size=64) + rng.normal(size=(n, 64))).astype(np.float16) for n in (60, 90, 45, 130)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[1]}-{kind[2]}")
def test_learns_to_match_and_survives_saving(
    kind: tuple[str, str, str], log_mels: list[np.ndarray], tmp_path: Path
) -> None:
    retriever = make(*kind)
    optimizer = torch.optim.Adam(retriever.parameters(), lr=3e-3)
    batch, lengths = pad_log_mels(log_mels)
    losses = []
    for _ in range(40):
        loss = retriever(batch, lengths, CAPTIONS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.log(4) - 1e-4 <= losses[-1] < losses[0] - 0.3
    retriever.save(tmp_path)
    loaded = Retriever.load(tmp_path)
    retriever.eval()
    similarity = loaded.similarity(loaded.text_embeddings(CAPTIONS), loaded.audio_embeddings(log_mels))
    expected = retriever.similarity(retriever.text_embeddings(CAPTIONS), retriever.audio_embeddings(log_mels))
    np.testing.assert_allclose(similarity, expected, atol=1e-5)


@pytest.mark.parametrize("finetuning", ["full", "frozen", "lora"])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_finetuned_checkpoint_survives_saving(
    kind: str, finetuning: str, log_mels: list[np.ndarray], tmp_path: Path
) -> None:
    """Trained for a few steps, saved, and loaded where the checkpoint that it came from is gone."""
    published = published_text_encoder(tmp_path / "published", kind)
    config = make(*KINDS[0]).config
    text = TextEncoderConfig.model_validate({"name": str(published), "finetuning": finetuning})
    retriever = Retriever.create(config.model_copy(update={"text_encoder": text}), [])
    start = retriever.text_encoder.eval()(CAPTIONS).detach()
    trained = [parameter for parameter in retriever.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    retriever.train()
    for _ in range(3):
        optimizer.zero_grad()
        retriever(*pad_log_mels(log_mels), CAPTIONS).backward()
        optimizer.step()
    retriever.eval().save(tmp_path / "member")
    shutil.rmtree(published)
    loaded = Retriever.load(tmp_path / "member")
    assert loaded.config.text_encoder.pooling == ("cls" if kind == "bert" else "mean")
    np.testing.assert_allclose(loaded.text_embeddings(CAPTIONS), retriever.text_embeddings(CAPTIONS), atol=1e-6)
    moved = not torch.allclose(loaded.text_encoder(CAPTIONS), start, atol=1e-4)
    assert moved == (finetuning != "frozen")
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in retriever.parameters()]


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-12, msg=name)


def test_gradient_cache_changes_no_gradient(log_mels: list[np.ndarray]) -> None:
    gradients = []
    fresh = make(*KINDS[0]).double().train()
    batch, lengths = pad_log_mels(log_mels)
    for chunk_size in (None, 3, 1):
        retriever = copy.deepcopy(fresh)
        retriever(batch.double(), lengths, CAPTIONS, chunk_size=chunk_size).backward()
        gradients.append({name: p.grad for name, p in retriever.named_parameters() if p.grad is not None})
    whole, *parts = gradients
    assert {"metric.factor", "audio_encoder.trunk.stem.0.weight"} <= whole.keys()
    for cached in parts:
        assert_same_gradients(cached, whole)


def test_gradient_cache_holds_the_activations_of_a_part_alone(log_mels: list[np.ndarray]) -> None:
    def held(chunk_size: int | None) -> int:
        """Bytes kept for the backward pass of 32 pairs, weights left out."""
        retriever = make(*KINDS[0]).train()
        weights = {parameter.data_ptr() for parameter in retriever.parameters()}
        kept: dict[int, int] = {}

        def keep(x: torch.Tensor) -> torch.Tensor:
            if x.data_ptr() not in weights:
                kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = retriever(*pad_log_mels(log_mels * 8), CAPTIONS * 8, chunk_size=chunk_size)
        assert loss.requires_grad
        return sum(kept.values())

    assert held(4) < held(None) / 5


def test_new_settings_for_old_weights(log_mels: list[np.ndarray], tmp_path: Path) -> None:
    """What init_from does: weights stay, dropout, loss and what is trained of the text encoder are the new ones."""
    published = published_text_encoder(tmp_path / "published", "bert")
    text = {"name": str(published)}
    old = RetrieverConfig.model_validate(make(*KINDS[0]).config.model_dump() | {"text_encoder": text})
    retriever = Retriever.create(old, []).eval()
    retriever.save(tmp_path / "old")
    new = RetrieverSettings.model_validate(
        {key: value for key, value in old.model_dump().items() if key != "log_mel"}
        | {"epsilon": 0.5, "dropout": 0.3, "text_encoder": text | {"finetuning": "lora"}}
    )
    loaded = Retriever.load(tmp_path / "old", new)
    assert (loaded.config.epsilon, loaded.config.text_encoder.pooling) == (0.5, "cls")
    assert [m.p for m in loaded.audio_projection.children() if isinstance(m, torch.nn.Dropout)] == [0.3]
    np.testing.assert_allclose(loaded.text_embeddings(CAPTIONS), retriever.text_embeddings(CAPTIONS), atol=1e-6)
    np.testing.assert_allclose(loaded.audio_embeddings(log_mels), retriever.audio_embeddings(log_mels), atol=1e-6)
    trained = [name for name, p in loaded.text_encoder.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)
    loaded.save(tmp_path / "new")
    with pytest.raises(ValueError, match="adapters are trained on as they are"):
        Retriever.load(tmp_path / "new", new.model_copy(update={"text_encoder": old.text_encoder}))
    with pytest.raises(CheckpointError, match=r"audio_projection\.3\.bias is"):
        Retriever.load(tmp_path / "old", new.model_copy(update={"joint_dim": 24}))


def test_embeddings_do_not_depend_on_the_batch(log_mels: list[np.ndarray]) -> None:
    retriever = make(*KINDS[0]).eval()
    together = retriever.audio_embeddings(log_mels)
    alone = np.concatenate([retriever.audio_embeddings([one]) for one in log_mels])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    texts = np.concatenate([retriever.text_embeddings([one]) for one in CAPTIONS])
    np.testing.assert_allclose(retriever.text_embeddings(CAPTIONS), texts, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_pair_similarity_is_a_cell_of_the_matrix(log_mels: list[np.ndarray]) -> None:
    retriever = make(*KINDS[1]).eval()
    text, audio = retriever.text_embeddings(CAPTIONS), retriever.audio_embeddings(log_mels)
    texts, clips = np.array([0, 3, 1, 1]), np.array([2, 0, 1, 3])
    pairs = retriever.pair_similarity(text, texts, audio, clips)
    np.testing.assert_allclose(pairs, retriever.similarity(text, audio)[texts, clips], atol=1e-4)


WRITTEN = ["A Dog barks, twice; nearby.", "RAIN falls on the roof (while wind blows)!"]
SAME_WORDS = ["a dog barks twice nearby", "rain falls on the roof while wind blows"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[1]}-{kind[2]}")
def test_all_texts_are_read_in_one_form(
    kind: tuple[str, str, str], log_mels: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = TextEncoder.create

    def recorded(config: TextEncoderConfig, texts: Iterable[str]) -> TextEncoder:
        read.extend(texts := list(texts))
        return original(config, texts)

    monkeypatch.setattr(TextEncoder, "create", recorded)
    monkeypatch.setattr(f"{__name__}.CAPTIONS", [*WRITTEN, *CAPTIONS])
    retriever = make(*kind, captions="normalised").eval()
    assert read[:2] == SAME_WORDS, "the tokenizer is trained on them"
    retriever.save(tmp_path)
    batch = pad_log_mels(log_mels[:2])
    for model in (retriever, Retriever.load(tmp_path)):
        np.testing.assert_array_equal(model.text_embeddings(WRITTEN), model.text_embeddings(SAME_WORDS))
        assert torch.equal(model(*batch, WRITTEN), model(*batch, SAME_WORDS)), "in training, too"


def test_a_retriever_of_before_there_was_a_choice_reads_texts_as_they_are(tmp_path: Path) -> None:
    retriever = make(*KINDS[2]).eval()
    retriever.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del config["captions"]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    loaded = Retriever.load(tmp_path)
    assert loaded.config.captions == "raw"
    np.testing.assert_array_equal(loaded.text_embeddings(WRITTEN), retriever.text_embeddings(WRITTEN))
    assert np.abs(loaded.text_embeddings(WRITTEN) - loaded.text_embeddings(SAME_WORDS)).max() > 1e-3
    new = Retriever.load(tmp_path, RetrieverSettings(**loaded.config.model_dump(exclude={"log_mel", "captions"})))
    assert new.config.captions == "normalised", "new training reads them as new members do"
