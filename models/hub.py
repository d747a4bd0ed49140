"""Find models of the Hugging Face hub in its cache on this machine, without network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
# What a model of transformers is loaded from: a part, and the files one of which holds it.
PARTS = {
    "config.json": ("config.json",),
    "tokenizer": TOKENIZER,
    "preprocessor_config.json": ("preprocessor_config.json",),
    "weights": WEIGHTS,
}
TEXT_MODEL = ("config.json", "tokenizer", "weights")
AUDIO_MODEL = ("config.json", "preprocessor_config.json", "weights")


def local_file(model: str, files: Sequence[str]) -> Path | None:
    """Return the first of `files` that a model has: a directory, or by its hub id the hub's cache; None if none is."""
    # of os.path, as elsewhere: pathlib raises for a name that is too long for a path
    folder = model if os.path.isdir(model) else cached_model(model, files)
    found = [path for name in files if folder and (path := Path(folder) / name).is_file()]
    return found[0] if found else None


def cached_model(name: str, files: Sequence[str] = WEIGHTS) -> str | None:
    """Return the directory of a model in the hub's cache, by its id; None where none of `files` is there.

    A path is no id, and a configuration alone, as loading a tokenizer leaves it, is not a model.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(name, file) for file in files]
    except HFValidationError:  # a path, which is no id
        return None
    return next((str(Path(file).parent) for file in found if isinstance(file, str)), None)
