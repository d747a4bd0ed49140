"""A file of weights fits a model exactly, or is refused with what differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file
from torch import nn

from models.checkpoint import load_weights, read_config, save_member, tensor_misfits
from models.files import CheckpointError

WANTED = {f"layer.{number}": torch.empty(2, 3, device="meta") for number in range(8)}


class Empty(BaseModel):
    """A config without fields."""


class Tied(nn.Module):
    """Two names for one tensor, and one more."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4)
        self.head.weight = self.table.weight


def test_what_fits_has_no_misfits() -> None:
    assert tensor_misfits({name: torch.zeros(2, 3) for name in WANTED}, WANTED) == ""


def test_missing_unexpected_and_other_shapes_are_named() -> None:
    found = {name: torch.zeros(2, 3) for name in WANTED} | {"layer.1": torch.zeros(3, 2), "other": torch.zeros(1)}
    del found["layer.0"]
    assert tensor_misfits(found, WANTED) == "missing layer.0; unexpected other; layer.1 is [3, 2], expected [2, 3]"
    assert tensor_misfits({}, WANTED).endswith("missing layer.4 and 3 more")
    assert tensor_misfits({}, WANTED, optional=WANTED.keys()) == ""


def test_dtypes_count_where_asked() -> None:
    found = {name: torch.zeros(2, 3, dtype=torch.float16) for name in WANTED}
    assert tensor_misfits(found, WANTED) == ""
    assert "layer.0 is torch.float16 [2, 3], expected torch.float32 [2, 3]" in tensor_misfits(
        found, WANTED, same_dtype=True
    )


def test_tied_weights_are_stored_once_and_loaded_under_both_names(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    save_member(model, tmp_path, "tied", Empty())
    assert set(load_file(tmp_path / "model.safetensors")) == {"table.weight", "head.bias"}
    load_weights(other, tmp_path)
    assert torch.equal(other.head.weight, model.table.weight)
    assert other.head.weight.data_ptr() == other.table.weight.data_ptr()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_weights(other, tmp_path)


def test_another_kind_of_member_is_refused(tmp_path: Path) -> None:
    save_member(Tied(), tmp_path, "tied", Empty())
    assert read_config(tmp_path, "tied") == {}
    with pytest.raises(CheckpointError, match="kind is 'tied', expected 'captioner'"):
        read_config(tmp_path, "captioner")
    with pytest.raises(CheckpointError, match="expected the directory of a trained captioner"):
        read_config(tmp_path / "absent", "captioner")
