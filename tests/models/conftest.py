"""Small models with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from models.captioner.model import Captioner
from models.settings import CaptionerConfig
from models.tokenization import train_tokenizer

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


def published_text_encoder(directory: Path, kind: str, layers: int = 2) -> Path:
    """A directory as transformers' hub lays it out, of a small `bert` or `roberta` with random weights."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer("bpe" if kind == "roberta" else "wordpiece", CAPTIONS, 300)
    sizes = {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 64}
    config = AutoConfig.for_model(
        kind, **sizes, vocab_size=len(tokenizer), pad_token_id=1, max_position_embeddings=66, initializer_range=0.3
    )
    AutoModel.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
