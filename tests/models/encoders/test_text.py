"""Text encoders: pooling as trained, what finetuning trains, depths of layers."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, BertForPreTraining, RobertaForMaskedLM

from models.encoders.layer_decay import layer_depths
from models.encoders.text import TextEncoder
from models.files import CheckpointError
from models.fluency.detector import FluencyDetector
from models.settings import FluencyDetectorConfig, TextEncoderConfig

from ..conftest import CAPTIONS, published_text_encoder

LEGACY = {"word_embedding_dimension": 32, "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
CLS = LEGACY | {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}  # as BGE publishes it
MEAN = LEGACY | {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}  # as all-MiniLM and its like do
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def with_pooling(directory: Path, content: Mapping[str, object]) -> Path:
    """The files of sentence-transformers beside those of transformers."""
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(content))
    (directory / "modules.json").write_text(json.dumps(MODULES))
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": false}')
    return directory


@pytest.mark.parametrize("content", [CLS, MEAN, {"embedding_dimension": 32, "pooling_mode": "cls"}])
def test_pools_as_sentence_transformers_do(content: dict[str, object], tmp_path: Path) -> None:
    directory = with_pooling(published_text_encoder(tmp_path, "bert"), content)
    encoder = TextEncoder.create(TextEncoderConfig(name=str(directory)), []).eval()
    expected = SentenceTransformer(str(directory), device="cpu").encode(CAPTIONS, convert_to_tensor=True)
    with torch.no_grad():
        torch.testing.assert_close(encoder(CAPTIONS), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "pooling"), [("bert", "cls"), ("roberta", "mean")])
def test_without_a_word_on_pooling_the_family_decides(kind: str, pooling: str, tmp_path: Path) -> None:
    name = str(published_text_encoder(tmp_path, kind))
    assert TextEncoder.create(TextEncoderConfig(name=name), []).config.pooling == pooling
    other = "mean" if pooling == "cls" else "cls"
    with_pooling(tmp_path, CLS if pooling == "cls" else MEAN)
    assert TextEncoder.create(TextEncoderConfig(name=name, pooling=other), []).config.pooling == other


@pytest.mark.parametrize("content", [{"pooling_mode": "max"}, {"pooling_mode": ["cls", "mean"]}, LEGACY])
def test_a_pooling_that_is_none_of_ours_is_refused(content: dict[str, object], tmp_path: Path) -> None:
    directory = with_pooling(published_text_encoder(tmp_path, "bert"), content)
    with pytest.raises(ValueError, match=r"1_Pooling/config.json says .* expected cls or mean"):
        TextEncoder.create(TextEncoderConfig(name=str(directory)), [])


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_loads_what_the_hub_holds(kind: str, tmp_path: Path) -> None:
    """bert-base-uncased comes as of pretraining, with norms named as in TensorFlow; roberta-base without a pooler."""
    config = AutoConfig.from_pretrained(published_text_encoder(tmp_path, kind))
    published: Any = BertForPreTraining(config) if kind == "bert" else RobertaForMaskedLM(config)
    published.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = {key: tensor.normal_() for key, tensor in load_file(file).items()}
    if kind == "bert":
        state = {re.sub("LayerNorm.weight$", "LayerNorm.gamma", key): tensor for key, tensor in state.items()}
        state = {re.sub("LayerNorm.bias$", "LayerNorm.beta", key): tensor for key, tensor in state.items()}
        assert "bert.embeddings.LayerNorm.gamma" in state
    save_file(state, file, metadata={"format": "pt"})
    loaded = dict(TextEncoder.create(TextEncoderConfig(name=str(tmp_path)), []).model.named_parameters())
    for key, tensor in state.items():
        if key.startswith(f"{kind}."):
            ours = key.removeprefix(f"{kind}.").replace(".gamma", ".weight").replace(".beta", ".bias")
            assert torch.equal(loaded.pop(ours), tensor)
    assert all(key.startswith("pooler.") for key in loaded)
    del state[f"{kind}.encoder.layer.1.output.dense.bias"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no weights of encoder.layer.1.output.dense.bias \(1 in all\)"):
        TextEncoder.create(TextEncoderConfig(name=str(tmp_path)), [])


def test_a_frozen_encoder_neither_learns_nor_drops_out(tmp_path: Path) -> None:
    name = str(published_text_encoder(tmp_path, "bert"))
    full = TextEncoder.create(TextEncoderConfig(name=name), []).train()
    assert not torch.equal(full(CAPTIONS), full(CAPTIONS)), "this one has dropout"
    frozen = TextEncoder.create(TextEncoderConfig(name=name, finetuning="frozen"), []).train()
    embeddings = frozen(CAPTIONS)
    assert torch.equal(embeddings, frozen(CAPTIONS))
    assert not embeddings.requires_grad
    torch.testing.assert_close(embeddings, full.eval()(CAPTIONS))


def test_lora_starts_at_the_checkpoint_and_learns_beside_it(tmp_path: Path) -> None:
    name = str(published_text_encoder(tmp_path, "roberta"))
    config = TextEncoderConfig(name=name, finetuning="lora", lora_rank=4)
    encoder = TextEncoder.create(config, []).eval()
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    original = TextEncoder.create(TextEncoderConfig(name=name), []).eval()
    start = encoder(CAPTIONS).detach()
    torch.testing.assert_close(start, original(CAPTIONS).detach())
    trained = {key: p for key, p in encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in key and 4 in p.shape for key, p in trained.items())
    encoder(CAPTIONS).square().sum().backward()
    torch.optim.SGD(trained.values(), lr=0.1).step()
    assert not torch.allclose(encoder(CAPTIONS), start, atol=1e-3)
    changed = {key for key, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed
    assert changed <= trained.keys()


def test_a_detector_keeps_the_pooling_that_was_found(tmp_path: Path) -> None:
    name = str(published_text_encoder(tmp_path / "published", "bert"))
    detector = FluencyDetector.create(FluencyDetectorConfig.model_validate({"text_encoder": name}), []).eval()
    detector.save(tmp_path / "member")
    loaded = FluencyDetector.load(tmp_path / "member")
    assert loaded.config.text_encoder.pooling == "cls"
    np.testing.assert_allclose(loaded.fluency_error(CAPTIONS), detector.fluency_error(CAPTIONS), atol=1e-6)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_damaged_layout_is_refused_with_its_directory(tmp_path: Path, name: str) -> None:
    published = str(published_text_encoder(tmp_path / "published", "bert"))
    FluencyDetector.create(FluencyDetectorConfig.model_validate({"text_encoder": published}), []).save(tmp_path)
    (tmp_path / "text_encoder" / name).write_text('{"model_type": ')
    with pytest.raises(CheckpointError, match=r"text_encoder: cannot be read \(.*\); copy the member again"):
        FluencyDetector.load(tmp_path)


def test_random_weights_must_be_trained() -> None:
    for finetuning in ("frozen", "lora"):
        with pytest.raises(ValueError, match="leaves the random weights of 'random:bert' untrained"):
            TextEncoderConfig.model_validate({"name": "random:bert", "finetuning": finetuning})


@pytest.mark.parametrize(("kind", "finetuning"), [("bert", "full"), ("roberta", "lora")])
def test_depths_of_layers_count_from_the_output(kind: str, finetuning: str, tmp_path: Path) -> None:
    name = str(published_text_encoder(tmp_path, kind, layers=3))
    config = FluencyDetectorConfig.model_validate({"text_encoder": {"name": name, "finetuning": finetuning}})
    depths = layer_depths(FluencyDetector.create(config, []))
    assert depths["head.weight"] == 0
    for key, depth in depths.items():
        if "encoder.layer." in key:
            assert depth == 3 - int(key.split("encoder.layer.")[1][0])
        elif "embeddings" in key:
            assert depth == 4
        elif "pooler" in key:
            assert depth == 1
    assert set(depths.values()) == {0, 1, 2, 3, 4}
