"""Small models with random weights."""

import numpy as np
import pytest
import torch

from models.captioner import Captioner
from models.settings import CaptionerConfig

CAPTIONS = [
    "a dog barks twice nearby",
    "rain falls on the roof while wind blows",
    "a bell rings and then footsteps fade",
    "an engine idles in the distance",
]


@pytest.fixture(scope="session")
def captioner() -> Captioner:
    torch.manual_seed(0)
    config = CaptionerConfig(
        language_model="random:bart",
        sizes={
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 160,
            "init_std": 0.3,
        },
        tokenizer="wordpiece",
        vocab_size=120,
        codebooks=3,
        codebook_size=16,
        audio_embedding_dim=8,
        label_smoothing=0.0,
    )
    return Captioner.create(config, CAPTIONS).eval()


@pytest.fixture(scope="session")
def clips() -> tuple[list[np.ndarray], np.ndarray]:
    """Codes [T_i, 3] of clips of different lengths, and audio embeddings [N, 8]."""
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 16, (frames, 3)).astype(np.int16) for frames in (40, 25, 90, 60, 25)]
    return codes, rng.normal(size=(5, 8)).astype(np.float32)
