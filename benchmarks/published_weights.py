"""Write random weights in the files of the published checkpoints: same names, shapes and layout, no training."""

from __future__ import annotations

from pathlib import Path

import dac
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForSeq2SeqLM

from models.codec.weights import plain_names
from models.published import published_architecture
from models.tokenization import train_tokenizer

DIMS, DEPTHS = (96, 192, 384, 768), (3, 3, 9, 3)  # of ConvNeXt-Tiny


def write_language_model(folder: Path, name: str, captions: list[str]) -> None:
    """Write a model of the hub as transformers saves it; the tokenizer is of its kind, trained on captions."""
    config = published_architecture(name)
    made = AutoModelForSeq2SeqLM if config.model_type == "bart" else AutoModel
    made.from_config(config).save_pretrained(folder)
    train_tokenizer("wordpiece" if config.model_type == "bert" else "bpe", captions, 1000).save_pretrained(folder)


def write_fense_checker(path: Path, encoder: Path) -> Path:
    """Write FENSE's file of its error detector; `encoder` is the directory of a BERT as transformers saves it."""
    bert = AutoModel.from_pretrained(encoder)
    weights = {f"encoder.{name}": tensor for name, tensor in bert.state_dict().items()}
    weights["encoder.embeddings.position_ids"] = torch.arange(bert.config.max_position_embeddings)[None]
    weights |= {"clf.weight": 0.02 * torch.randn(6, bert.config.hidden_size), "clf.bias": torch.zeros(6)}
    torch.save({"model_type": "bert-base-uncased", "num_classes": 6, "state_dict": weights}, path)
    return path


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
