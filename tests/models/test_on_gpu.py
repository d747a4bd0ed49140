"""On a GPU: the same codes, log-mels, embeddings and scores as on the CPU, and training in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpora.soundscapes.render import render
from corpora.soundscapes.sampling import sample_scenes
from models.captioner.model import Captioner
from models.codec.base import Codec, load_codec
from models.codec.dac import DacCodec
from models.encoders.log_mel import LogMel
from models.fluency.detector import FluencyDetector
from models.generation.candidates import Decoding
from models.generation.proposals import ClipInputs, propose
from models.retriever.model import Retriever
from models.retriever.optimal_transport import m_ltm_loss
from models.settings import BeamConfig, LogMelConfig, SamplingConfig, TokenEnsembleConfig
from tests.models.codec.test_dac import random_dac
from tests.models.codec.test_encodec import AT_24KHZ, AT_48KHZ, random_encodec

from .conftest import CAPTIONS
from .test_devices import detector, retriever

__all__ = ["detector", "retriever"]  # fixtures
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
DIFFERING_CODES = 0.001  # at most: near ties between two entries, which fall either way by rounding
Clips = tuple[list[np.ndarray], np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def memory() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    """Return clips of the built-in corpus at 16 kHz, cut to different lengths."""
    return [
        render(scene)[: 70_000 + 1111 * row] for row, scene in enumerate(sample_scenes({"test": 8}, seed=0)["test"])
    ]


def differing(codes: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Return the share of codes [T, Q] that differ."""
    assert [one.shape for one in codes] == [one.shape for one in others]
    return float(np.concatenate([(one != other).ravel() for one, other in zip(codes, others, strict=True)]).mean())


def _encodec(directory: Path, settings: dict[str, Any]) -> Codec:
    random_encodec(settings).save_pretrained(directory)
    return load_codec(directory)


@pytest.mark.parametrize("kind", ["shipped", "dac-44khz", "encodec-24khz", "encodec-48khz"])
def test_codes_are_those_of_the_cpu(
    kind: str, scenes: list[np.ndarray], tmp_path: Path, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    makers = {
        "shipped": lambda: load_codec("dac-soundscapes-16khz"),
        "dac-44khz": lambda: DacCodec.from_dac(random_dac()),  # the published size
        "encodec-24khz": lambda: _encodec(tmp_path, AT_24KHZ),
        "encodec-48khz": lambda: _encodec(tmp_path, AT_48KHZ),
    }
    clips = scenes if kind == "shipped" else [scene[: 30_000 + 777 * row] for row, scene in enumerate(scenes)]
    codec = makers[kind]()
    expected = codec.encode(clips)
    together = codec.to("cuda").encode(clips)
    alone = [codec.encode([clip])[0] for clip in clips]
    pieces = codec.encode(clips, chunk_s=0.5)
    for how, codes in {"together": together, "alone": alone, "in pieces": pieces}.items():
        share = differing(codes, expected)
        record_property(f"{kind} {how}", share)
        with capsys.disabled():
            print(f"\n{kind}, {how}: {share:.4%} of the codes differ from the CPU's")
        assert share < DIFFERING_CODES


def test_log_mels_are_those_of_the_cpu(scenes: list[np.ndarray]) -> None:
    log_mel = LogMel(LogMelConfig(sample_rate=16_000, f_max=8000))
    expected = log_mel.of_clips(scenes)
    found = log_mel.to("cuda").of_clips(scenes)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float16
        assert one.shape == other.shape
        # One step of float16 at 100 dB is 0.06; power far below a frame's loudest is rounding.
        assert float((np.abs(one.astype(float) - other) > 0.0626).mean()) < 1e-3


def test_embeddings_and_similarities_are_those_of_the_cpu(retriever: Retriever, detector: FluencyDetector) -> None:
    rng = np.random.default_rng(0)
    log_mels = [
        (20 * rng.normal(size=64) - 50).repeat(n).reshape(64, n).T.astype(np.float16) for n in (60, 90, 45, 130)
    ]
    cpu, gpu = deepcopy(retriever).eval(), deepcopy(retriever).eval().to("cuda")
    audio, text = cpu.audio_embeddings(log_mels), cpu.text_embeddings(CAPTIONS)
    np.testing.assert_allclose(gpu.audio_embeddings(log_mels), audio, atol=2e-3)  # TF32 in convolutions
    np.testing.assert_allclose(gpu.text_embeddings(CAPTIONS), text, atol=2e-3)
    np.testing.assert_allclose(gpu.similarity(text, audio), cpu.similarity(text, audio), atol=1e-4)
    errors = deepcopy(detector).eval().fluency_error(CAPTIONS)
    np.testing.assert_allclose(deepcopy(detector).eval().to("cuda").fluency_error(CAPTIONS), errors, atol=2e-3)


@pytest.mark.parametrize("mass", [1.0, 0.8])
def test_the_transport_loss_and_its_gradient_are_those_of_the_cpu(mass: float) -> None:
    torch.manual_seed(0)
    pairs = [torch.randn(32, 16), torch.randn(32, 16)]
    found = []
    for device in ("cpu", "cuda"):
        audio, text = (one.detach().to(device).requires_grad_() for one in pairs)
        loss = m_ltm_loss(audio, text, 0.1, mass, None)
        loss.backward()
        assert audio.grad is not None
        found.append((loss.detach().cpu(), audio.grad.cpu()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("long_clips", ["crop", "windows", "pool", "interpolate"])
def test_a_captioner_learns_in_bfloat16(captioner: Captioner, long_clips: str) -> None:
    model = deepcopy(captioner).train().to("cuda")
    model.config = model.config.model_copy(update={"long_clips": long_clips})
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 16, (frames, 3)).astype(np.int16) for frames in (40, 300)]  # one is too long
    audio = torch.randn(2, 8, device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    losses = []
    for _ in range(30):
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(*model.pad_codes(clips), audio, [CAPTIONS[:2], CAPTIONS[2:]])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "beam",
    [BeamConfig(beams=1), BeamConfig(beams=3), BeamConfig(beams=4, groups=2), BeamConfig(beams=1, penalty_alpha=0.5)],
)
def test_candidates_are_those_of_the_cpu(captioner: Captioner, clips: Clips, beam: BeamConfig) -> None:
    """A draw may fall otherwise by rounding, but few do: all clips have candidates, and most the very same."""
    decoding = Decoding(SamplingConfig(candidates=4, max_tokens=12), beam.model_copy(update={"max_tokens": 12}), seed=0)
    proposed = []
    for device in ("cpu", "cuda"):
        members = {name: deepcopy(captioner).to(device) for name in ("a", "b")}
        inputs = ClipInputs(clips[0], dict.fromkeys(members, clips[1]))
        joint = {"joint": TokenEnsembleConfig(members=["a", "b"])}
        proposed.append(propose(members, inputs, decoding, joint).candidates)
    cpu, gpu = proposed
    assert cpu.keys() == gpu.keys()
    for name, expected in cpu.items():
        assert [len(of_clip) > 0 for of_clip in gpu[name]] == [True] * len(expected)
        same = [
            {c.text for c in one} == {c.text for c in other} for one, other in zip(expected, gpu[name], strict=True)
        ]
        assert sum(same) >= len(same) - 1
