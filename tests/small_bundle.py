"""A bundle of small members with random weights, as `enclap export` lays it out, and sounds for it. Made in seconds."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from models.captioner.model import Captioner
from models.codec.base import Codec, load_codec
from models.ensemble.checksums import write_sums
from models.ensemble.manifest import MANIFEST, BundleManifest
from models.ensemble.reranking import Reranking
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.fluency.detector import FluencyDetector
from models.retriever.model import Retriever
from models.settings import (
    AudioEncoderConfig,
    BeamConfig,
    CaptionerConfig,
    FluencyDetectorConfig,
    LogMelConfig,
    RetrieverConfig,
    SamplingConfig,
    TextEncoderConfig,
)

RATE = 16_000
CAPTIONS = ["a dog barks twice nearby", "rain falls on the roof while wind blows", "a bell rings and footsteps fade"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
BART = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 160,
    "init_std": 0.5,
}  # fmt: skip


LOG_MEL = LogMelConfig(sample_rate=RATE, n_fft=512, hop_length=160, n_mels=32, f_min=50, f_max=8000)


def small_members(codec: Codec, log_mel: LogMelConfig) -> dict[str, Retriever | Captioner | FluencyDetector]:
    """Return a retriever, a captioner and a fluency detector with random weights, by their kinds."""
    torch.manual_seed(0)
    text = TextEncoderConfig(name="random:bert", sizes=dict(SIZES), vocab_size=100)
    heard = AudioEncoderConfig(backbone="random:convnext", dims=[8, 8, 8, 8], depths=[1, 1, 1, 1])
    retriever = RetrieverConfig(audio_encoder=heard, text_encoder=text, joint_dim=8, hidden_dim=16, log_mel=log_mel)
    captioner = CaptionerConfig(
        language_model="random:bart",
        sizes=dict(BART),
        tokenizer="wordpiece",
        vocab_size=120,
        codebooks=codec.n_codebooks,
        codebook_size=codec.codebook_size,
        audio_embedding_dim=8,
    )
    return {
        "retriever": Retriever.create(retriever, CAPTIONS).eval(),
        "captioner": Captioner.create(captioner, CAPTIONS).eval(),
        "fluency-detector": FluencyDetector.create(FluencyDetectorConfig(text_encoder=text), CAPTIONS).eval(),
    }


def write_bundle(directory: Path) -> Path:
    """Write a bundle of a retriever, a captioner, a fluency detector and a codec of 16 kHz; return its directory."""
    codec = load_codec("dac-soundscapes-16khz", 2)
    for kind, member in small_members(codec, LOG_MEL).items():
        member.save(directory / "members" / kind.removesuffix("-detector"))
    codec.save(directory / "codec" / "codec.safetensors")
    manifest = BundleManifest(
        retrievers=["retriever"],
        captioners={"captioner": "retriever"},
        fluency_detector="fluency",
        codebooks=codec.n_codebooks,
        log_mel=LOG_MEL,
        max_duration_s=3.0,
        sampling=SamplingConfig(candidates=4, max_tokens=12),
        beam=BeamConfig(beams=2, max_tokens=12),
        reranking=Reranking(weights={"retriever": 0.5, "decoder": 0.25, "consensus/ngram": 0.25}),
        retrieval=RetrievalFusion(weights={"retriever": 1.0}),
        seed=0,
        provenance={},
    )
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    write_sums(directory, [str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()])
    return directory


def forbid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python's reading of a file fail as if another user had made it; a mode would not keep root from it."""
    opened = Path.open

    def open_others(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_others)


def write_sounds(folder: Path, number: int = 3) -> list[Path]:
    """Write sounds of one to two seconds, no two alike; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"sound-{at}.wav" for at in range(number)]
    for at, path in enumerate(paths):
        time_s = np.arange(RATE + at * RATE // number) / RATE
        noise = np.random.default_rng(at).normal(size=len(time_s))
        soundfile.write(path, 0.2 * np.sin(2 * np.pi * 300 * (at + 1) * time_s) + 0.05 * noise, RATE)
    return paths
