"""The files of a trained member: model.safetensors and config.json, written atomically, loaded without pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from torch import nn

from .files import CheckpointError, atomic_write, write_json


def save_member(model: nn.Module, directory: str | Path, kind: str, config: BaseModel) -> None:
    """Write `model.safetensors` and `config.json` ({"kind": ..., **config}) into `directory`."""
    directory = Path(directory)
    # Tied tensors are stored once, under their first name.
    state = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            state[name] = tensor.contiguous().cpu()
            seen.add(tensor.data_ptr())
    with atomic_write(directory / "model.safetensors") as partial:
        save_file(state, partial, metadata={"format": "pt"})
    write_json(directory / "config.json", {"kind": kind, **config.model_dump(mode="json")})


def read_config(directory: str | Path, kind: str) -> dict[str, Any]:
    """Read `config.json` of a member of the given kind.

    Raises:
        CheckpointError: if the file is missing or of another kind.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected the directory of a trained {kind}")
    config = json.loads(path.read_text(encoding="utf-8"))
    found = config.pop("kind", None)
    if found != kind:
        raise CheckpointError(f"{path}: kind is {found!r}, expected {kind!r}")
    return config


def load_weights(model: nn.Module, directory: str | Path) -> None:
    """Fill `model` from `model.safetensors`; every tensor must be there in its shape, and no other.

    Raises:
        CheckpointError: naming missing and unexpected keys, and shapes that differ.
    """
    path = Path(directory) / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    found, wanted = load_file(path), model.state_dict()
    for name, tensor in found.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            raise CheckpointError(f"{path}: {name} is {list(tensor.shape)}, expected {list(wanted[name].shape)}")
    missing, unexpected = model.load_state_dict(found, strict=False)
    stored = {wanted[name].data_ptr() for name in found if name in wanted}
    missing = [name for name in missing if wanted[name].data_ptr() not in stored]  # tied ones are there
    if missing or unexpected:
        raise CheckpointError(f"{path}: missing {sorted(missing)[:5]}, unexpected {sorted(unexpected)[:5]}")
