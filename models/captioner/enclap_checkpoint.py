"""Load checkpoints of EnCLAP's own scripts (arXiv 2401.17690) as weights of our captioner.

A checkpoint is a directory with `config.json` (BartConfig and d_clap, num_rvq, encodec_vocab_size,
encodec_pad_token_id, mcm_loss_scale, label_smoothing) and `pytorch_model.bin` or `model.safetensors`. It holds no
tokenizer: the scripts use that of facebook/bart-base. It has a table and a head for each codebook, our captioner one
for all codebooks.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BartConfig

from ..checkpoint import read_tensors, tensor_misfits
from ..files import CheckpointError
from ..records import parse_object

FIELDS = {"codebooks": "num_rvq", "codebook_size": "encodec_vocab_size", "audio_embedding_dim": "d_clap"}
DEFAULTS = {"num_rvq": 16, "encodec_vocab_size": 1024, "d_clap": 512, "mcm_loss_scale": 0.7, "label_smoothing": 0.2}
WEIGHTS = ("pytorch_model.bin", "model.safetensors")
SHARED = "model.shared.weight"
TIED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
ROWS_OF = 64  # a codebook's table is padded to a multiple of this many rows


def enclap_settings(directory: str | Path) -> dict[str, Any]:
    """Read the fields of CaptionerConfig that the config.json of a checkpoint determines.

    Raises:
        CheckpointError: if the directory is not a checkpoint of EnCLAP's scripts.
    """
    known = DEFAULTS | _read_config(directory)
    shapes = {ours: known[published] for ours, published in FIELDS.items()}
    return shapes | {"mcm_weight": known["mcm_loss_scale"], "label_smoothing": known["label_smoothing"]}


def language_model_config(directory: str | Path) -> BartConfig:
    """Read the config of a checkpoint's BART.

    Raises:
        CheckpointError: if the directory is not a checkpoint of EnCLAP's scripts, or its BART scales word vectors,
            which EnCLAP's encoder does not do.
    """
    config = BartConfig(**{key: value for key, value in _read_config(directory).items() if key != "dtype"})
    if config.scale_embedding:
        raise CheckpointError(f"{directory}/config.json: scale_embedding is true, expected false, as in every BART")
    return config


def has_tokenizer(directory: str | Path) -> bool:
    """Return whether the files of a tokenizer lie beside the weights."""
    return any((Path(directory) / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def load_enclap_weights(captioner: nn.Module, directory: str | Path) -> None:
    """Fill a Captioner whose language model is `language_model_config`.

    Raises:
        CheckpointError: if the directory is not a checkpoint of EnCLAP's scripts; naming the codes or embeddings that
            differ from the captioner's, and the tensors that are missing, unexpected, or of other shapes.
    """
    config: Any = captioner.config
    settings = enclap_settings(directory)
    differing = [
        f"{FIELDS[key]} {settings[key]}, not {getattr(config, key)} ({key})"
        for key in FIELDS
        if settings[key] != getattr(config, key)
    ]
    if differing:
        raise CheckpointError(f"{directory}/config.json: the checkpoint has {'; '.join(differing)}")
    path, found = _read_weights(directory, mapped=False)
    ours = captioner.state_dict()
    if misfits := tensor_misfits(found, _published(ours, config.codebooks, config.codebook_size), optional=TIED):
        raise CheckpointError(f"{path}: {misfits}")
    books, size = range(config.codebooks), config.codebook_size
    tables = [found.pop(f"model.encoder.embed_encodec.{q}.weight") for q in books]
    pad = _read_config(directory).get("encodec_pad_token_id", size)
    if used := [q for q, table in enumerate(tables) if not size <= pad < len(table) or table[pad].any()]:
        raise CheckpointError(f"{path}: row {pad} (pad and mask) of embed_encodec.{used[0]} is not zero")
    for name in TIED:
        if not torch.equal(found.pop(name, found[SHARED]), found[SHARED]):
            raise CheckpointError(f"{path}: {name} differs from {SHARED}; expected them tied")
    mapped = {
        "code_embedding.weight": torch.cat([*(table[:size] for table in tables), torch.zeros_like(tables[0][:1])]),
        "audio_projection.weight": found.pop("model.encoder.clap_projection.weight"),
        "audio_projection.bias": found.pop("model.encoder.clap_projection.bias"),
        "mcm_head.weight": torch.cat([found.pop(f"mcm_heads.{q}.weight") for q in books]),
        "mcm_head.bias": torch.cat([found.pop(f"mcm_heads.{q}.bias") for q in books]),
    }
    mapped |= {f"bart.{name}": tensor for name, tensor in found.items()}
    captioner.load_state_dict(mapped | {f"bart.{name}": found[SHARED] for name in TIED})


def check_enclap_checkpoint(directory: str | Path, mapped: bool = True) -> None:
    """Check that a directory has the files of a checkpoint, and that they can be read; `mapped` as in `read_tensors`.

    Raises:
        CheckpointError: if not.
    """
    language_model_config(directory)
    _read_weights(directory, mapped)


def _published(ours: dict[str, Tensor], codebooks: int, size: int) -> dict[str, Tensor]:
    """Return tensors of the names and shapes that a checkpoint must hold for a captioner's own tensors `ours`."""
    rows, width = math.ceil((size + 1) / ROWS_OF) * ROWS_OF, ours["code_embedding.weight"].shape[1]
    wanted = {name.removeprefix("bart."): tensor for name, tensor in ours.items() if name.startswith("bart.")}
    for kind in ("weight", "bias"):
        wanted[f"model.encoder.clap_projection.{kind}"] = ours[f"audio_projection.{kind}"]
    with torch.device("meta"):
        for q in range(codebooks):
            wanted[f"model.encoder.embed_encodec.{q}.weight"] = torch.empty(rows, width)
            wanted[f"mcm_heads.{q}.weight"] = torch.empty(size, width)
            wanted[f"mcm_heads.{q}.bias"] = torch.empty(size)
    return wanted


def _read_config(directory: str | Path) -> dict[str, Any]:
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint directory of EnCLAP's scripts")
    config = parse_object(path.read_bytes(), path, "download the checkpoint again")
    if config.get("model_type", "bart") != "bart":
        raise CheckpointError(f"{path}: model_type is {config['model_type']!r}, expected 'bart'")
    return config


def _read_weights(directory: str | Path, mapped: bool) -> tuple[Path, dict[str, Tensor]]:
    paths = [path for name in WEIGHTS if (path := Path(directory) / name).is_file()]
    if not paths:
        raise CheckpointError(f"{directory}: found neither {' nor '.join(WEIGHTS)}")
    path = paths[0]
    found = read_tensors(path, mapped)
    # Saved from several GPUs, every name begins with the wrapper's.
    prefix = "module." if all(name.startswith("module.") for name in found) else ""
    return path, {name.removeprefix(prefix): tensor for name, tensor in found.items()}
