"""Write random weights in the files of the published checkpoints: same names, shapes and layout, no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dac
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from models.codec.weights import plain_names
from models.tokenization import train_tokenizer

DIMS, DEPTHS = (96, 192, 384, 768), (3, 3, 9, 3)  # of ConvNeXt-Tiny
# Sizes of config.json as published; what is not named has the same value by default in transformers.
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "bart-base": {"model_type": "bart", "d_model": 768, "encoder_layers": 6, "decoder_layers": 6,
                  "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072,
                  "decoder_ffn_dim": 3072, "vocab_size": 50_265},
    "bart-large": {"model_type": "bart", "vocab_size": 50_265},
    "bert-base-uncased": {"model_type": "bert"},
    "bge-base-en-v1.5": {"model_type": "bert"},
    "roberta-base": {"model_type": "roberta", "vocab_size": 50_265, "max_position_embeddings": 514,
                     "type_vocab_size": 1, "layer_norm_eps": 1e-5},
}  # fmt: skip


def write_language_model(folder: Path, name: str, captions: list[str]) -> Path:
    """Write `folder/name` as transformers saves it; the tokenizer is of the published kind, trained on captions."""
    sizes = dict(LANGUAGE_MODELS[name])
    kind = sizes.pop("model_type")
    config = AutoConfig.for_model(kind, **sizes)
    made = AutoModelForSeq2SeqLM if kind == "bart" else AutoModel
    made.from_config(config).save_pretrained(folder / name)
    train_tokenizer("wordpiece" if kind == "bert" else "bpe", captions, 1000).save_pretrained(folder / name)
    return folder / name


def write_dac(path: Path) -> Path:
    """Write descript's file of the 44.1 kHz DAC at 8 kbit/s: `{"state_dict": ..., "metadata": {"kwargs": ...}}`."""
    model = dac.DAC()  # whose defaults are those of this release
    kwargs = {"encoder_dim": 64, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 1536, "decoder_rates": [8, 8, 4, 2],
              "n_codebooks": 9, "codebook_size": 1024, "codebook_dim": 8, "sample_rate": 44_100}  # fmt: skip
    torch.save({"state_dict": plain_names(model.state_dict()), "metadata": {"kwargs": kwargs}}, path)
    return path


def write_audioset_convnext(path: Path) -> Path:
    """Write Zenodo's file of the ConvNeXt-Tiny AudioSet tagger: `{"model": ...}`."""
    torch.save({"model": audioset_convnext()}, path)
    return path


def audioset_convnext() -> dict[str, Tensor]:
    """Return the tensors of the ConvNeXt-Tiny AudioSet tagger (arXiv 2306.00830) with random numbers."""
    state = {
        name: torch.randn(shape) * (0.05 if len(shape) > 1 else 0.2) + name.endswith(("gamma", "norm.weight"))
        for name, shape in audioset_convnext_shapes().items()
    }
    state["bn0.running_mean"], state["bn0.running_var"] = 5 * torch.randn(224) - 40, 100 * torch.rand(224) + 1
    state["bn0.num_batches_tracked"] = torch.tensor(12345)
    state["spectrogram_extractor.stft.conv_real.weight"] = torch.randn(513, 1, 1024)
    state["spectrogram_extractor.stft.conv_imag.weight"] = torch.randn(513, 1, 1024)
    state["logmel_extractor.melW"] = torch.rand(513, 224)
    return state


def audioset_convnext_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every trained tensor, as the first ConvNeXt code names them."""
    shapes: dict[str, tuple[int, ...]] = {"bn0.weight": (224,), "bn0.bias": (224,)}
    for i, dim in enumerate(DIMS):
        convolution, norm = (f"downsample_layers.{i}.{at if i == 0 else 1 - at}" for at in (0, 1))
        shapes[f"{convolution}.weight"] = (96, 1, 4, 4) if i == 0 else (dim, dim // 2, 2, 2)
        shapes[f"{convolution}.bias"] = (dim,)
        shapes |= {f"{norm}.weight": (DIMS[max(0, i - 1)],), f"{norm}.bias": (DIMS[max(0, i - 1)],)}
        for j in range(DEPTHS[i]):
            block = f"stages.{i}.{j}"
            shapes |= {
                f"{block}.gamma": (dim,),
                f"{block}.dwconv.weight": (dim, 1, 7, 7),
                f"{block}.dwconv.bias": (dim,),
            }
            shapes |= {f"{block}.norm.weight": (dim,), f"{block}.norm.bias": (dim,)}
            shapes |= {f"{block}.pwconv1.weight": (4 * dim, dim), f"{block}.pwconv1.bias": (4 * dim,)}
            shapes |= {f"{block}.pwconv2.weight": (dim, 4 * dim), f"{block}.pwconv2.bias": (dim,)}
    shapes |= {"norm.weight": (768,), "norm.bias": (768,)}
    return shapes | {"head_audioset.weight": (527, 768), "head_audioset.bias": (527,)}
