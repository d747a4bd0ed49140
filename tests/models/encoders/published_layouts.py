"""Audio encoders of transformers as the hub lays them out, tiny and with random weights."""

from pathlib import Path
from typing import Any

import torch
import transformers

AST = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_length": 64,
    "num_mel_bins": 32,
}  # fmt: skip
HTSAT = {
    "patch_embeds_hidden_size": 8, "hidden_size": 32, "depths": [1, 1, 1], "num_attention_heads": [2, 2, 2],
    "num_hidden_layers": 3, "window_size": 4, "spec_size": 64, "num_mel_bins": 32, "projection_dim": 16,
}  # fmt: skip
TEXT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50,
    "projection_dim": 16,
}  # fmt: skip
WHISPER = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 50,
    "num_mel_bins": 32, "max_source_positions": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip
WAV2VEC = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": [8, 8, 8], "conv_stride": [5, 4, 4], "conv_kernel": [10, 8, 8], "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
KINDS = ("ast", "clap", "clap-fused", "whisper", "wav2vec2", "hubert", "wavlm", "sew")
RATES = dict.fromkeys(KINDS, 16_000) | {"clap": 48_000, "clap-fused": 48_000}
WINDOWS_S = {"ast": 0.655, "clap": 1.0, "clap-fused": 1.0, "whisper": 1.0}  # what the others hear at once is not fixed


def save_published(kind: str, directory: Path) -> Path:
    """Write the model and the feature extractor of a kind, as `from_pretrained` finds them on the hub."""
    torch.manual_seed(0)
    model, extractor = _made(kind)
    for parameter in model.parameters():  # some are published as zeros or ones, and hide what they do
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.eval().save_pretrained(directory)
    extractor.save_pretrained(directory)
    return directory


def _made(kind: str) -> tuple[Any, Any]:
    if kind == "ast":
        extractor: Any = transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=64)
        return transformers.ASTForAudioClassification(transformers.ASTConfig(**AST, num_labels=3)), extractor
    if kind.startswith("clap"):
        fused = kind == "clap-fused"
        config = transformers.ClapConfig(audio_config=HTSAT | {"enable_fusion": fused}, text_config=TEXT)
        extractor = transformers.ClapFeatureExtractor(
            feature_size=32, max_length_s=1, hop_length=480, truncation="fusion" if fused else "rand_trunc"
        )
        return transformers.ClapModel(config), extractor
    if kind == "whisper":
        config = transformers.WhisperConfig(**WHISPER)
        return transformers.WhisperForConditionalGeneration(config), transformers.WhisperFeatureExtractor(
            feature_size=32, chunk_length=1
        )
    if kind == "sew":
        config = transformers.SEWConfig(**WAV2VEC, squeeze_factor=2)
        return transformers.SEWModel(config), transformers.Wav2Vec2FeatureExtractor()
    names = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}
    config = getattr(transformers, f"{names[kind]}Config")(**WAV2VEC)
    return getattr(transformers, f"{names[kind]}Model")(config), transformers.Wav2Vec2FeatureExtractor()
