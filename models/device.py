"""Run models on a GPU: which one, at which precision, and how many clips at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from .errors import InputError


def available_device() -> torch.device:
    """Return the GPU if this process sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def usable_device(wanted: str | torch.device | None) -> torch.device:
    """Return a device, by default the GPU if there is one.

    Raises:
        InputError: torch cannot compute on it here.
    """
    if wanted is None:
        return available_device()
    try:
        return torch.empty(0, device=wanted).device
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise InputError(f"device: found {wanted!r}, expected one that torch finds here: {', '.join(there)}") from error


def device_name(device: torch.device) -> str:
    """Return a GPU's name as its maker has it, or the kind of another device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 in full: by default GPUs use TF32 in convolutions, whose 10 bits would change many codes.

    Convolutions are deterministic, too, so that a clip has the same codes whenever it is encoded.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False, fp32_precision="ieee"):
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = before


def batches_by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield batches of positions whose lengths are alike, so that little of a batch is padding.

    Args:
        lengths: of the items, in any unit.
        budget: what a batch may hold of that unit, padding included; an item that is longer is a batch by itself.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batch: list[int] = []
    for position in order:
        if batch and (len(batch) + 1) * lengths[position] > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
