"""Know the sizes of published models without their files: for plans, which hold no weights.

The values are those of each model's config.json; what is not named is transformers' default. The tests hold the numbers
of parameters against the published ones.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING

LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "facebook/bart-base": {
        "model_type": "bart", "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12,
        "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072, "vocab_size": 50_265,
    },
    "facebook/bart-large": {"model_type": "bart", "vocab_size": 50_265},
    "bert-base-uncased": {"model_type": "bert"},
    "BAAI/bge-base-en-v1.5": {"model_type": "bert"},
    "roberta-base": {
        "model_type": "roberta", "vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    },
}  # fmt: skip
AUDIO_ENCODERS: dict[str, dict[str, Any]] = {
    "MIT/ast-finetuned-audioset-10-10-0.4593": {"model_type": "audio-spectrogram-transformer"},
    "laion/clap-htsat-unfused": {"model_type": "clap"},
    "laion/clap-htsat-fused": {"model_type": "clap", "audio_config": {"enable_fusion": True}},
    "openai/whisper-tiny": {"model_type": "whisper"},
    "openai/whisper-base": {
        "model_type": "whisper", "d_model": 512, "encoder_layers": 6, "decoder_layers": 6,
        "encoder_attention_heads": 8, "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048,
    },
    "openai/whisper-small": {
        "model_type": "whisper", "d_model": 768, "encoder_layers": 12, "decoder_layers": 12,
        "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
    },
    "facebook/wav2vec2-base": {"model_type": "wav2vec2"},
    "facebook/hubert-base-ls960": {"model_type": "hubert"},
    "microsoft/wavlm-base": {"model_type": "wavlm"},
}  # fmt: skip
PUBLISHED = LANGUAGE_MODELS | AUDIO_ENCODERS


def local_architecture(name: str) -> Any:
    """Return the transformers config of a model by hub id or directory, without network.

    Raises:
        OSError: if it is neither on this disk nor among those whose sizes are known.
    """
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True)
    except OSError:
        if name not in PUBLISHED:
            raise
        return published_architecture(name)


def published_architecture(name: str) -> Any:
    """Return the transformers config of a model whose sizes are known, by its hub id."""
    sizes = dict(PUBLISHED[name])
    return AutoConfig.for_model(sizes.pop("model_type"), **sizes)


def local_feature_extractor(name: str, architecture: Any) -> Any:
    """Return the feature extractor of an audio encoder by hub id or directory, without network.

    Where it is not on this disk, it is the one that encoders of the architecture have by default.
    """
    try:
        return AutoFeatureExtractor.from_pretrained(name, local_files_only=True)
    except OSError:
        return FEATURE_EXTRACTOR_MAPPING[type(architecture)]()
