"""Codec weights on disk: find them, read each layout of files, and identify the weights by a checksum."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..checkpoint import read_tensors, save_tensors, tensor_misfits
from ..errors import InputError
from ..files import CheckpointError, atomic_write, refuse_unreadable, write_json

State = dict[str, Tensor]  # weights by name; weight norm as weight_g and weight_v

SHIPPED = {"dac-soundscapes-16khz": Path(__file__).parent / "shipped" / "dac-soundscapes-16khz.safetensors"}
OFFICIAL_DIRECTORY = Path.home() / ".cache" / "descript" / "dac"  # where `python -m dac download` puts them
OFFICIAL = {
    "dac-44khz": "weights_44khz_8kbps_0.0.1.pth",
    "dac-44khz-16kbps": "weights_44khz_16kbps_1.0.0.pth",
    "dac-24khz": "weights_24khz_8kbps_0.0.4.pth",
    "dac-16khz": "weights_16khz_8kbps_0.0.5.pth",
}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
HUB_FILES = ["config.json", "model.safetensors"]


class CodecError(InputError, ValueError):
    """A codec cannot be loaded, or cannot encode its input; the message says what was found and expected."""


def find_weights(source: str | Path, *, local_files_only: bool = False) -> Path:
    """Return the file or directory that a source means (`load_codec` lists the kinds of sources).

    Args:
        local_files_only: whether a hub id is looked for in the hub's cache alone, without network.

    Raises:
        CodecError: if it is missing; the message says which command puts it where.
    """
    if source in SHIPPED:
        return SHIPPED[str(source)]
    if source in OFFICIAL:
        return _official_file(str(source))
    path = Path(source)
    if os.path.isfile(path) or os.path.isdir(path):
        return path
    if HUB_ID.fullmatch(str(source)) and path.suffix not in (".pth", ".safetensors"):
        return _hub_directory(str(source), local_files_only)
    raise CodecError(
        f"codec {str(source)!r}: no such file or directory; expected a .safetensors or .pth file, a directory of "
        f"transformers, a hub id such as facebook/encodec_24khz, or one of {', '.join([*SHIPPED, *OFFICIAL])}"
    )


def _official_file(source: str) -> Path:
    path = OFFICIAL_DIRECTORY / OFFICIAL[source]
    if not path.is_file():
        _, model_type, bitrate, release = path.stem.split("_")
        raise CodecError(
            f"{source}: {path} is missing; it belongs to release {release} of descript-audio-codec "
            f"(`python -m dac download --model_type {model_type} --model_bitrate {bitrate}` gets it)"
        )
    return path


def _hub_directory(source: str, local_files_only: bool) -> Path:
    """Return the files of a model of the Hugging Face hub: cached, or downloaded unless HF_HUB_OFFLINE is set."""
    from huggingface_hub import snapshot_download

    try:
        found = Path(snapshot_download(source, allow_patterns=HUB_FILES, local_files_only=local_files_only))
        if local_files_only and not all((found / name).is_file() for name in HUB_FILES):
            raise FileNotFoundError("the cache has some files of it alone")
        return found
    except (OSError, ValueError) as error:  # every error of the hub, of the network and of the file system
        raise CodecError(
            f"{source}: no such directory, and not in the hub's cache (`hf download {source} "
            f"{' '.join(HUB_FILES)}` gets it); or give the path of a directory with these files"
        ) from error


def read_own(path: Path) -> tuple[dict[str, Any], State]:
    """Read a .safetensors file that `write_own` wrote, and the record beside it, which must hold its checksum.

    Returns:
        The record, and the weights.

    Raises:
        CodecError: if either file has another layout or other content.
    """
    beside = path.with_suffix(".json")
    refuse_unreadable(path, CodecError)
    try:
        record, state = json.loads(beside.read_text(encoding="utf-8")), load_file(path)
        _, expected = record["kwargs"], record["weights_sha256"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CodecError(f"not a codec with {beside.name} beside it: {error!r}") from error
    found = weights_sha256(state)
    if found != expected:
        raise CodecError(f"weights of sha256 {found}, expected {expected} as in {beside.name} beside it")
    return record, state


def write_own(path: Path, record: dict[str, Any], state: State) -> None:
    """Write weights as .safetensors and the record as .json beside it.

    Raises:
        CodecError: for another suffix.
    """
    if path.suffix != ".safetensors":
        raise CodecError(f"{path}: found suffix {path.suffix!r}, expected .safetensors")
    with atomic_write(path) as partial:
        save_tensors(partial, {key: tensor.contiguous() for key, tensor in state.items()})
        write_json(path.with_suffix(".json"), record)


def read_official(path: Path) -> tuple[dict[str, Any], State]:
    """Read arguments and weights of descript's releases: {"state_dict": ..., "metadata": {"kwargs": ...}}.

    Raises:
        CodecError: for a file of another layout.
    """
    try:
        # Mapped, not read: weights that are never used (the decoder's, in feature extraction) take no memory.
        content = read_tensors(path, mapped=True)
        return dict(content["metadata"]["kwargs"]), dict(content["state_dict"])
    except (CheckpointError, KeyError, TypeError, ValueError) as error:
        raise CodecError(f"not a DAC weights file of descript's releases: {error!r}") from error


def read_transformers(directory: Path) -> tuple[dict[str, Any], State]:
    """Read config.json and weights from a directory that `save_pretrained` of transformers wrote.

    Raises:
        CodecError: if a file is missing or broken.
    """
    refuse_unreadable(directory / "model.safetensors", CodecError)
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        return config, plain_names(load_file(directory / "model.safetensors"))
    except (OSError, SafetensorError, ValueError) as error:
        raise CodecError(f"expected config.json and model.safetensors of transformers: {error!r}") from error


def plain_names(state: Mapping[str, Tensor]) -> State:
    """Rename weight norm as before torch 2.0; all published files use these names."""
    return {plain_name(key): tensor for key, tensor in state.items()}


def plain_name(key: str) -> str:
    """Rename one key as in `plain_names`."""
    key = key.replace("parametrizations.weight.original0", "weight_g")
    return key.replace("parametrizations.weight.original1", "weight_v")


def fill(model: nn.Module, state: State) -> None:
    """Assign weights to a model without copying them; the model may be on the meta device.

    Raises:
        CodecError: unless names, shapes and dtypes are exactly the model's.
    """
    wanted = {plain_name(key): (key, tensor) for key, tensor in model.state_dict().items()}
    if misfits := tensor_misfits(state, {key: tensor for key, (_, tensor) in wanted.items()}, same_dtype=True):
        raise CodecError(misfits)
    model.load_state_dict({wanted[key][0]: tensor for key, tensor in state.items()}, assign=True)


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and values of weights, which is the same for all file formats."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
