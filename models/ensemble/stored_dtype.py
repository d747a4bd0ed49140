"""Store the weights of a bundle in 16 bits instead of 32. They are computed with in float32 all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..checkpoint import save_tensors
from ..files import atomic_write
from .precision import DTYPES

StoredDtype = Literal["fp32", "bf16", "fp16"]
METRIC = "metric."  # of a retriever: every distance goes through it, and it is small


def store_as(dtype: StoredDtype, weights: Path) -> None:
    """Rewrite a member's model.safetensors with its matrices in a dtype.

    Vectors (biases, normalisations, temperatures) stay as they are, as do a retriever's metric and what is not in
    float32; so does a matrix with a value beyond the range of fp16.
    """
    if dtype == "fp32":
        return
    state = {name: _stored(name, tensor, DTYPES[dtype]) for name, tensor in load_file(weights).items()}
    with atomic_write(weights) as partial:
        save_tensors(partial, state)


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.ndim < 2 or tensor.dtype != torch.float32 or name.startswith(METRIC):
        return tensor
    converted = tensor.to(dtype)
    return converted if converted.isfinite().all() else tensor
