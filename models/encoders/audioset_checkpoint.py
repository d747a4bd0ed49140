"""The published ConvNeXt-Tiny AudioSet tagger (arXiv 2306.00830) as weights of our audio encoder.

Files: Zenodo 8020843, `convnext_tiny_471mAP.pth` or, for evaluation on AudioCaps, `..._465mAP_BL_AC_70kit.pth`
(`{"model": tensors}`); on the hub `topel/ConvNeXt-Tiny-AT`, `model.safetensors` (the tensors alone). Their names are
those of the first ConvNeXt code, ours those of timm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..checkpoint import read_tensors, tensor_misfits
from ..files import CheckpointError

# The log-mel front end is our own (log_mel.py), and a retriever has no use for the tagger's 527 classes.
LEFT_OUT = {
    "spectrogram_extractor.stft.conv_real.weight",
    "spectrogram_extractor.stft.conv_imag.weight",
    "logmel_extractor.melW",
    "head_audioset.weight",
    "head_audioset.bias",
}
RENAMED = (
    (r"bn0\.(\w+)", r"bn0.\1"),
    (r"downsample_layers\.0\.([01])\.(\w+)", r"trunk.stem.\1.\2"),
    (r"downsample_layers\.([1-3])\.([01])\.(\w+)", r"trunk.stages.\1.downsample.\2.\3"),
    (r"stages\.(\d+)\.(\d+)\.dwconv\.(\w+)", r"trunk.stages.\1.blocks.\2.conv_dw.\3"),
    (r"stages\.(\d+)\.(\d+)\.pwconv([12])\.(\w+)", r"trunk.stages.\1.blocks.\2.mlp.fc\3.\4"),
    (r"stages\.(\d+)\.(\d+)\.(norm\.\w+|gamma)", r"trunk.stages.\1.blocks.\2.\3"),
    (r"norm\.(\w+)", r"trunk.head.norm.\1"),
)


def load_audioset_weights(encoder: nn.Module, path: str | Path) -> None:
    """Fill an AudioEncoder with backbone convnext_tiny from a published file, or a directory with model.safetensors.

    Raises:
        CheckpointError: if the file is missing or unreadable; naming the tensors that are missing, unexpected or of
            other shapes.
    """
    found = read_audioset_weights(path)
    if misfits := tensor_misfits(found, encoder.state_dict()):
        raise CheckpointError(f"{path}: {misfits}")
    encoder.load_state_dict(found)


def read_audioset_weights(path: str | Path, mapped: bool = False) -> dict[str, Tensor]:
    """Read the weights of a published file by our names; `mapped` as in `read_tensors`.

    Raises:
        CheckpointError: if it is missing or unreadable, or has a tensor that the published ConvNeXt has not.
    """
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    found = _read(path, mapped)
    return {_our_name(name, path): tensor for name, tensor in found.items() if name not in LEFT_OUT}


def _read(path: Path, mapped: bool) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected the published ConvNeXt-Tiny AudioSet weights")
    content = read_tensors(path, mapped)
    if path.suffix == ".safetensors":
        return dict(content)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(f"{path}: found {type(content).__name__}, expected a dictionary with tensors in 'model'")
    weights: dict[str, Tensor] = content["model"]
    return weights


def _our_name(name: str, path: Path) -> str:
    for published, ours in RENAMED:
        if match := re.fullmatch(published, name):
            return match.expand(ours)
    raise CheckpointError(f"{path}: found {name!r}, which is not a tensor of the published ConvNeXt")
