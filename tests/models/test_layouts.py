"""A layout has the parameters of the model that `create` builds, and takes no memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from models.captioner.model import Captioner
from models.files import CheckpointError
from models.fluency.detector import FluencyDetector
from models.retriever.model import Retriever
from models.settings import CaptionerConfig, FluencyDetectorConfig, LogMelConfig, RetrieverConfig, TextEncoderConfig

from .conftest import CAPTIONS, published_text_encoder

SIZES: dict[str, int | float | str] = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
}  # fmt: skip
RANDOM_TEXT = TextEncoderConfig(name="random:bert", sizes=SIZES, vocab_size=100)


def parameters(model: nn.Module) -> dict[str, tuple[list[int], bool]]:
    """The shape of each parameter, and whether it is trained."""
    return {name: (list(one.shape), one.requires_grad) for name, one in model.named_parameters()}


def assert_laid_out(layout: nn.Module, made: nn.Module) -> None:
    assert {one.device.type for one in layout.parameters()} == {"meta"}
    assert parameters(layout) == parameters(made)


def test_a_captioner_is_laid_out_as_it_is_built(captioner: Captioner) -> None:
    config = captioner.config.model_copy(update={"vocab_size": len(captioner.tokenizer)})
    assert_laid_out(Captioner.layout(config), captioner)


@pytest.mark.parametrize("kind", ["from scratch", "published", "lora"])
def test_encoders_of_text_are_laid_out_as_they_are_built(kind: str, tmp_path: Path) -> None:
    text = RANDOM_TEXT
    if kind != "from scratch":
        name = str(published_text_encoder(tmp_path, "bert"))
        text = TextEncoderConfig(name=name, finetuning="lora" if kind == "lora" else "full")
    detector = FluencyDetector.create(FluencyDetectorConfig(text_encoder=text), CAPTIONS)
    text = text.model_copy(update={"vocab_size": len(detector.text_encoder.tokenizer)})
    assert_laid_out(FluencyDetector.layout(FluencyDetectorConfig(text_encoder=text)), detector)


def test_a_retriever_is_laid_out_as_it_is_built() -> None:
    config = RetrieverConfig.model_validate(
        {
            "log_mel": LogMelConfig(n_mels=32, sample_rate=16_000, f_max=8000),
            "audio_encoder": {"backbone": "random:convnext", "depths": (1, 1, 1, 1), "dims": (4, 4, 8, 8)},
            "text_encoder": RANDOM_TEXT,
            "joint_dim": 16,
            "hidden_dim": 16,
        }
    )
    made = Retriever.create(config, CAPTIONS)
    text = RANDOM_TEXT.model_copy(update={"vocab_size": len(made.text_encoder.tokenizer)})
    assert_laid_out(Retriever.layout(config.model_copy(update={"text_encoder": text})), made)


def test_sizes_of_what_is_not_on_this_disk_are_asked_of_nobody(tmp_path: Path) -> None:
    absent = TextEncoderConfig(name="nobody/has-published-this")
    with pytest.raises(OSError, match="cached"):
        FluencyDetector.layout(FluencyDetectorConfig(text_encoder=absent))
    config = CaptionerConfig(checkpoint=str(tmp_path / "absent"), codebooks=3, codebook_size=16, audio_embedding_dim=8)
    with pytest.raises(CheckpointError, match="absent"):
        Captioner.layout(config)


def test_laying_out_draws_no_random_numbers(captioner: Captioner) -> None:
    state = torch.get_rng_state()
    Captioner.layout(captioner.config)
    FluencyDetector.layout(FluencyDetectorConfig(text_encoder=RANDOM_TEXT))
    assert torch.equal(torch.get_rng_state(), state)
