"""Know the sizes of published models without their files: for plans, which hold no weights.

The values are those of each model's config.json; what is not named is transformers' default. The tests hold the numbers
of parameters against the published ones.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

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


def local_architecture(name: str) -> Any:
    """Return the transformers config of a model by hub id or directory, without network.

    Raises:
        OSError: if it is neither on this disk nor among those whose sizes are known.
    """
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True)
    except OSError:
        if name not in LANGUAGE_MODELS:
            raise
        return published_architecture(name)


def published_architecture(name: str) -> Any:
    """Return the transformers config of one of LANGUAGE_MODELS, by its hub id."""
    sizes = dict(LANGUAGE_MODELS[name])
    return AutoConfig.for_model(sizes.pop("model_type"), **sizes)
