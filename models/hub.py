"""Find models of the Hugging Face hub in its cache on this machine, without network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model")


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
