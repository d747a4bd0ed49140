"""A file of weights fits a model exactly, or is refused with what differs."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel

from models import checkpoint
from models.checkpoint import load_weights, read_config, read_tensors, save_member, save_tensors, tensor_misfits
from models.encoders.text import TextEncoder
from models.files import CheckpointError, atomic_write
from models.settings import TextEncoderConfig

from ..small_bundle import forbid
from .conftest import published_text_encoder

WANTED = {f"layer.{number}": torch.empty(2, 3, device="meta") for number in range(8)}


class Empty(BaseModel):
    """A config without fields."""


class Sized(BaseModel):
    """A config with a field."""

    size: int


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


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_weights_may_be_read_by_whom_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        save_member(Tied(), tmp_path, "tied", Empty())
        save_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(2)})
    finally:
        os.umask(before)
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {
        "model.safetensors": mode,
        "config.json": mode,
        "other.safetensors": mode,
    }


def test_a_full_disk_is_told_with_the_file_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library says it as an error of its own, without the file."""

    def fill_up(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", fill_up)
    path = tmp_path / "model.safetensors"
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), atomic_write(path) as partial:
        save_tensors(partial, {})


def test_weights_that_must_not_be_read_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_member(Tied(), tmp_path, "tied", Empty())
    forbid(tmp_path / "model.safetensors", monkeypatch)
    for read in (lambda: load_weights(Tied(), tmp_path), lambda: read_tensors(tmp_path / "model.safetensors")):
        with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read .*Permission denied"):
            read()


def test_another_kind_of_member_is_refused(tmp_path: Path) -> None:
    save_member(Tied(), tmp_path, "tied", Empty())
    assert read_config(Empty, tmp_path, "tied") == Empty()
    with pytest.raises(CheckpointError, match="kind is 'tied', expected 'captioner'"):
        read_config(Empty, tmp_path, "captioner")
    with pytest.raises(CheckpointError, match="expected the directory of a trained captioner"):
        read_config(Empty, tmp_path / "absent", "captioner")


@pytest.mark.parametrize("kept", [0, 4, 60, -1], ids=["empty", "in the length", "in the header", "in the tensors"])
def test_weights_that_are_cut_are_refused(tmp_path: Path, kept: int) -> None:
    save_member(Tied(), tmp_path, "tied", Empty())
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged \(.*\); .*train it again"):
        load_weights(Tied(), tmp_path)


def test_weights_that_are_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 9)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        load_weights(Tied(), tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"kind": "sized", ', "not JSON"),
        (b"", "not JSON"),
        (b'{"kind": "sized", "size": "\xff"}', "not UTF-8"),
        (b"[1, 2]", r"found \[1, 2\], expected a JSON object"),
        (b'{"kind": "sized", "size": "wide"}', "size: found 'wide', expected: Input should be a valid integer"),
        (b'{"kind": "sized"}', "field 'size' is missing"),
    ],
)
def test_a_config_that_is_damaged_or_does_not_fit_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"config\.json: {problem}.*; .*train it again"):
        read_config(Sized, tmp_path, "sized")


def test_a_damaged_file_of_torch_is_named_wherever_the_damage_is(tmp_path: Path) -> None:
    """Torch raises another class of error for nearly every place."""
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a": torch.arange(64.0), "b": torch.ones(3, 3)}}, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            read_tensors(path)  # numbers may be damaged without a trace
        except CheckpointError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(said.startswith(f"{path}: cannot be read as weights: ") for said in refused)


# --- what trainers save beside the tensors -------------------------------------------------------------------------

SCALARS = [np.float64(0.471), np.float32(0.5), np.int64(7), np.bool_(True), np.str_("best")]


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[[str], Any], argument: str) -> None:
        self.reduced = function, (argument,)

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return self.reduced


@pytest.mark.parametrize(
    ("as_zip", "module"),
    [(True, "numpy._core.multiarray"), (False, "numpy._core.multiarray"), (False, "numpy.core.multiarray")],
    ids=["zip", "before torch 1.6", "numpy 1"],
)
def test_numpys_numbers_and_arrays_beside_the_tensors_are_read(tmp_path: Path, as_zip: bool, module: str) -> None:
    path, per_class = tmp_path / "weights.pth", np.linspace(0, 1, 4)
    content = {"model": {"a": torch.arange(3.0)}, "mAP": SCALARS, "per_class": per_class}
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    if not as_zip:  # the name is a line of the pickle
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", module.encode()))
    assert module.encode() in path.read_bytes()
    found = read_tensors(path)
    assert torch.equal(found["model"]["a"], torch.arange(3.0))
    assert found["mAP"] == SCALARS
    assert [type(number) for number in found["mAP"]] == [type(number) for number in SCALARS]
    assert np.array_equal(found["per_class"], per_class)


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "before torch 1.6"])
def test_a_file_that_would_run_code_is_refused_by_the_name_of_the_code(tmp_path: Path, as_zip: bool) -> None:
    path, made, allowed = tmp_path / "weights.pth", tmp_path / "made", set(torch.serialization.get_safe_globals())
    for content, name in (
        (Calls(os.mkdir, str(made)), r"posix\.mkdir"),
        (Calls(eval, f"__import__('os').mkdir({str(made)!r})"), "eval"),
        (argparse.Namespace(lr=1), r"argparse\.Namespace"),
        (np.array([1], dtype=object), r"numpy\.dtypes\.ObjectDType"),
    ):
        torch.save({"model": torch.ones(2), "more": content}, path, _use_new_zipfile_serialization=as_zip)
        with pytest.raises(
            CheckpointError, match=rf"weights\.pth: cannot be read as weights: found {name}, expected .*torch\.save"
        ):
            read_tensors(path)
    assert not made.exists()
    assert set(torch.serialization.get_safe_globals()) == allowed, "what is allowed here is allowed nowhere else"


def test_an_encoder_of_transformers_is_read_alike(tmp_path: Path) -> None:
    """transformers reads pytorch_model.bin itself."""
    directory = published_text_encoder(tmp_path, "bert")
    state = AutoModel.from_pretrained(directory).state_dict()
    (directory / "model.safetensors").unlink()
    config = TextEncoderConfig(name=str(directory))
    torch.save(state | {"score": Calls(os.mkdir, str(tmp_path / "made"))}, directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=rf"{directory}: .* found posix\.mkdir, expected tensors"):
        TextEncoder.create(config, [])
    assert not (tmp_path / "made").exists()
    torch.save(state | {"score": np.float64(0.5)}, directory / "pytorch_model.bin")
    loaded = TextEncoder.create(config, [])
    assert torch.equal(loaded.model.get_input_embeddings().weight, state["embeddings.word_embeddings.weight"])
