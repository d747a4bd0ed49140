"""Every forward path keeps its tensors on the model's device: run on fake CUDA tensors, which need no GPU.

PyTorch's FakeTensorMode computes shapes, dtypes and devices alone, and raises where one operation gets tensors of two
devices. What cannot run so (backward passes, transformers' own beam search) does in tests/models/test_on_gpu.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

from models.captioner.distillation import TokenTargets, mean_log_probabilities
from models.captioner.model import Captioner
from models.codec.base import Codec, load_codec
from models.encoders.log_mel import LogMel, pad_log_mels
from models.fluency.detector import FluencyDetector
from models.generation import candidates
from models.generation.candidates import Candidate
from models.retriever.distillation import SoftTargets, TeacherEmbeddings
from models.retriever.hard_negatives import WrongTexts
from models.retriever.model import Retriever
from models.settings import (
    AudioEncoderConfig,
    BeamConfig,
    FluencyDetectorConfig,
    LogMelConfig,
    RetrieverConfig,
    SamplingConfig,
    TextEncoderConfig,
    WrongCaptionsConfig,
)

from .conftest import CAPTIONS
from .encoders.published_layouts import RATES, save_published

CUDA = torch.device("cuda")
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Where a branch depends on a value: loops have converged, captions have ended.
    monkeypatch.setattr(FakeTensor, "__bool__", lambda self: True, raising=False)
    monkeypatch.setattr(FakeTensor, "__float__", lambda self: 0.0, raising=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def on_cuda(model: Any) -> Any:
    """Return a copy of a model on the fake GPU."""
    with unset_fake_temporarily():
        copied = deepcopy(model)
    return copied.to(CUDA)


def is_on_cuda(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    config = RetrieverConfig(
        audio_encoder=AudioEncoderConfig(backbone="random:convnext", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)),
        text_encoder=TextEncoderConfig(name="random:bert", sizes=dict(TEXT), vocab_size=300),
        joint_dim=16,
        hidden_dim=32,
        log_mel=LogMelConfig(n_mels=64),
    )
    return Retriever.create(config, CAPTIONS)


@pytest.fixture(scope="module")
def detector() -> FluencyDetector:
    text = TextEncoderConfig(name="random:bert", sizes=dict(TEXT), vocab_size=300, pooling="mean")
    return FluencyDetector.create(FluencyDetectorConfig(text_encoder=text), CAPTIONS)


@pytest.fixture(scope="module")
def log_mels() -> tuple[Tensor, Tensor]:
    return pad_log_mels([np.zeros((frames, 64), np.float16) for frames in (60, 90, 45, 130)])


def test_the_guard_finds_a_tensor_that_stays_on_the_cpu(fake: None) -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.arange(3) + torch.arange(3, device=CUDA)


@pytest.fixture
def codec() -> Codec:
    return load_codec("dac-soundscapes-16khz")


@pytest.fixture(scope="module")
def front_end() -> LogMel:
    return LogMel(LogMelConfig())


def test_codec(codec: Codec, fake: None) -> None:
    codec.to(CUDA)
    batch = torch.zeros(3, 16_000, device=CUDA)
    for lengths in ([16_000] * 3, [16_000, 3200, 6400]):
        codes = codec._encode(batch, lengths, kept=10)
        assert is_on_cuda(codes)
        assert codes.shape == (3, 25, 4)


def test_log_mel(front_end: LogMel, fake: None) -> None:
    found = on_cuda(front_end).decibels(torch.zeros(2, 32_000, device=CUDA))
    assert is_on_cuda(found)
    assert found.shape == (2, (32_000 - 1024) // 320 + 1, 224)


@pytest.mark.parametrize("training", [False, True])
def test_retriever_embeds_both(
    retriever: Retriever, log_mels: tuple[Tensor, Tensor], fake: None, training: bool
) -> None:
    model = on_cuda(retriever).train(training)
    audio, text = model._embed_pairs(*log_mels, CAPTIONS)  # as training, audio_embeddings and text_embeddings do
    assert is_on_cuda(audio)
    assert is_on_cuda(text)
    assert is_on_cuda(model.metric(audio))
    assert audio.shape == text.shape == (4, 16)


@pytest.mark.parametrize("loss", ["m-ltm", "nt-xent", "triplet"])
@pytest.mark.parametrize("mass", [1.0, 0.8])
@pytest.mark.parametrize("groups", [None, [0, 1, 1, 2]])
def test_retriever_losses(
    retriever: Retriever,
    log_mels: tuple[Tensor, Tensor],
    fake: None,
    loss: str,
    mass: float,
    groups: list[int] | None,
) -> None:
    model = on_cuda(retriever).train()
    model.config = model.config.model_copy(update={"loss": loss, "transported_mass": mass})
    model.log_scale = nn.Parameter(torch.zeros((), device=CUDA))
    clips = None if groups is None else torch.tensor(groups)
    assert is_on_cuda(model(*log_mels, CAPTIONS, clips))


def test_retriever_learns_from_teachers(retriever: Retriever, log_mels: tuple[Tensor, Tensor], fake: None) -> None:
    model = on_cuda(retriever).train()
    read = torch.zeros(4, 16)  # by threads, from files
    targets = SoftTargets([TeacherEmbeddings(read, read, model.metric)], 0.5, 0.5)
    losses = model(*log_mels, CAPTIONS, soft_targets=targets)
    assert set(losses) == {"loss", "pair_loss", "distillation_loss"}
    assert all(map(is_on_cuda, losses.values()))


def test_captioner_learns_from_teachers(captioner: Captioner, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, captions = on_cuda(captioner).train(), [CAPTIONS[:2], CAPTIONS[2:]]
    codes = torch.zeros(2, 40, 3, dtype=torch.long, device=CUDA)
    padded = codes, torch.full((2,), 40, device=CUDA)
    monkeypatch.setattr(Captioner, "pad_codes", lambda *_: padded)  # whose lengths are numbers, not shapes
    labels = model.labels(CAPTIONS)
    expected = mean_log_probabilities([on_cuda(captioner)], [*codes], [torch.zeros(2, 8)], labels, 1.0)
    targets = TokenTargets(expected, 1.0, 0.5)
    losses = model(*padded, torch.zeros(2, 8, device=CUDA), captions, soft_targets=targets)
    assert set(losses) == {"loss", "caption_loss", "mcm_loss", "distillation_loss"}
    assert all(map(is_on_cuda, losses.values()))


@pytest.mark.parametrize("loss", ["m-ltm", "nt-xent", "triplet"])
def test_retriever_loss_of_wrong_captions(
    retriever: Retriever, log_mels: tuple[Tensor, Tensor], fake: None, loss: str
) -> None:
    model = on_cuda(retriever).train()
    model.config = model.config.model_copy(update={"loss": loss, "wrong_captions": WrongCaptionsConfig()})
    model.log_scale = nn.Parameter(torch.zeros((), device=CUDA))
    negatives = WrongTexts(
        model.embed_text(CAPTIONS[:3]),
        torch.tensor([0, 0, 2], device=CUDA),
        torch.tensor([0, 1, 0], device=CUDA),
        most=2,
    )
    assert is_on_cuda(negatives.embeddings)
    audio, text = model._embed_pairs(*log_mels, CAPTIONS)
    largest = model._largest_distance(audio, text) if loss == "m-ltm" else None
    assert is_on_cuda(model._wrong_caption_loss(audio, text, negatives, largest))


@pytest.mark.parametrize("kind", ["ast", "clap", "whisper", "wav2vec2"])
@pytest.mark.parametrize("training", [False, True])
def test_audio_encoder_of_transformers(fake: None, kind: str, training: bool, tmp_path: Path) -> None:
    with unset_fake_temporarily():
        config = RetrieverConfig(
            audio_encoder=AudioEncoderConfig(
                backbone=f"hf:{save_published(kind, tmp_path)}", sample_rate=RATES[kind], window_s=0.4
            ),
            text_encoder=TextEncoderConfig(name="random:bert", sizes=dict(TEXT), vocab_size=300),
            joint_dim=16,
            hidden_dim=32,
            log_mel=LogMelConfig(n_mels=64),
        )
        retriever = Retriever.create(config, CAPTIONS)
        lengths = [round(seconds * RATES[kind]) for seconds in (0.3, 1.0, 0.3, 0.7)]
        batch = retriever.audio_encoder.front_end.collate([np.zeros(length, np.int16) for length in lengths])
    model = on_cuda(retriever).train(training)
    audio, _ = model._embed_pairs(*batch, CAPTIONS)
    assert is_on_cuda(audio)
    assert audio.shape == (4, 16)


def test_fluency_detector(fake: None, detector: FluencyDetector) -> None:
    model = on_cuda(detector)
    assert is_on_cuda(model.logits(CAPTIONS))
    assert is_on_cuda(model(CAPTIONS, torch.zeros(4, device=CUDA)))


@pytest.mark.parametrize("long_clips", ["crop", "pool", "interpolate"])
@pytest.mark.parametrize("frames", [40, 300])  # the position table has room for 157
def test_captioner_losses(captioner: Captioner, fake: None, long_clips: str, frames: int) -> None:
    model = on_cuda(captioner).train()
    model.config = model.config.model_copy(update={"long_clips": long_clips})
    frames = min(frames, model.max_frames) if long_clips == "crop" else frames
    codes = torch.zeros(2, frames, 3, dtype=torch.long, device=CUDA)
    lengths = torch.full((2,), frames, device=CUDA)
    losses = model(codes, lengths, torch.zeros(2, 8, device=CUDA), [CAPTIONS[:2], CAPTIONS[2:]])
    assert set(losses) == {"loss", "caption_loss", "mcm_loss"}
    assert all(map(is_on_cuda, losses.values()))


def encoded(model: Captioner) -> tuple[Tensor, Tensor]:
    codes, lengths = torch.zeros(2, 40, 3, dtype=torch.long, device=CUDA), torch.full((2,), 40, device=CUDA)
    return model.encode(codes, lengths, torch.zeros(2, 8, device=CUDA))


def test_captioner_scores_captions(captioner: Captioner, fake: None) -> None:
    model = on_cuda(captioner)
    states, mask = encoded(model)
    assert is_on_cuda(model.log_likelihood(states, mask, CAPTIONS[:2]))


@pytest.mark.parametrize("how", ["sampling", "static", "greedy", "groups", "contrastive"])
def test_generation(captioner: Captioner, fake: None, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    ids: list[Tensor] = []

    def keep(_: Any, found: Tensor, summed: Tensor, tokens: Tensor) -> list[Candidate]:
        ids.extend([found, summed, tokens])  # numbers, which fake tensors do not have, would be texts
        return [Candidate("", 0.0, 0)] * len(found)

    monkeypatch.setattr(candidates, "_candidates", keep)
    # Inference mode does not know fake tensors, and would ask for a driver.
    monkeypatch.setattr(candidates, "beam_search", inspect.unwrap(candidates.beam_search))
    model = on_cuda(captioner)
    states, mask = encoded(model)
    samplings = {
        "sampling": SamplingConfig(candidates=3, max_tokens=8, top_k=5, min_p=0.1, typical_p=0.9, repetition_penalty=2),
        "static": SamplingConfig(candidates=3, max_tokens=8, static_cache=True),
    }
    beams = {
        "greedy": BeamConfig(beams=1, max_tokens=8),
        "groups": BeamConfig(beams=4, groups=2, diversity_penalty=1.0, max_tokens=8),
        "contrastive": BeamConfig(beams=1, penalty_alpha=0.5, max_tokens=8),
    }
    with torch.no_grad():
        if how in samplings:
            inspect.unwrap(candidates.sample)(model, states, mask, samplings[how], seed=0)
        else:
            inspect.unwrap(candidates.search)(model, states, mask, beams[how])
    assert ids
    assert all(map(is_on_cuda, ids))
