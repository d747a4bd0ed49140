"""Save and load a trained member: model.safetensors and config.json, written atomically, read without pickle."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar
from zipfile import is_zipfile

import numpy as np
import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.serialization import safe_globals

from .files import CheckpointError, atomic_write, missing, refuse_stand_in, refuse_unreadable, write_json
from .records import check_fields, parse_object

Config = TypeVar("Config", bound=BaseModel)
REMEDY = "copy the member again from where it was trained, or remove its directory and train it again"
SHOWN = 5  # misfits in a message
# What trainers save beside the tensors, such as the best mAP: the pickles of numpy's numbers and arrays name these two
# functions, numpy 1 in the first module and numpy 2 in the second, and the types.
REBUILDERS: dict[str, Any] = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.zeros(0).__reduce__()[0]}
NUMPY_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bhilqBHILQefdFDSU"),  # no objects, which would bring further globals
    *((function, f"numpy.core.multiarray.{name}") for name, function in REBUILDERS.items()),
    *((function, f"numpy._core.multiarray.{name}") for name, function in REBUILDERS.items()),
]


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
        save_tensors(partial, state)
    write_json(directory / "config.json", {"kind": kind, **config.model_dump(mode="json")})


def save_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, readable by whom the umask says: the library makes files that the owner alone may
    read, whatever it says.

    Raises:
        OSError: the system's, such as that of a full disk.
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(dict(state), path, metadata={"format": "pt"})
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):  # the library keeps no more of it
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise
    path.chmod(mode)


def read_config(schema: type[Config], directory: str | Path, kind: str) -> Config:
    """Read `config.json` in the directory of a member, whose kind must be the given one.

    Raises:
        CheckpointError: if the file is missing, damaged or of another kind; naming the fields that do not fit.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{path}: {missing(path)}; expected the directory of a trained {kind}; {REMEDY}")
    fields = parse_object(path.read_bytes(), path, REMEDY)
    found = fields.pop("kind", None)
    if found != kind:
        raise CheckpointError(f"{path}: kind is {found!r}, expected {kind!r}")
    return check_fields(schema, fields, path, REMEDY)


@contextmanager
def naming(source: str | Path, remedy: str = REMEDY) -> Iterator[None]:
    """Name the directory or hub id of a layout or tokenizer, by default a member's, where no model can be made of it.

    Raises:
        CheckpointError: in place of any error.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # the tokenizers library raises no narrower class
        said = (str(error).strip() or repr(error)).splitlines()[0]
        raise CheckpointError(f"{source}: cannot be read ({said}); {remedy}") from error


def read_tensors(path: Path, mapped: bool = False) -> Any:
    """Read a file of tensors: safetensors by its suffix, else what `torch.save` wrote, without running code in it.

    Args:
        mapped: leave what `torch.save` wrote on disk until it is used, unchecked, as safetensors always are; torch
            before 1.6 wrote files that are read as a whole.

    Raises:
        CheckpointError: if the file is empty, damaged, or of neither kind; naming what is neither a tensor nor plain
            data.
    """
    try:
        refuse_stand_in(path, "weights", CheckpointError)
        if path.suffix == ".safetensors":
            return load_file(path)
        with plain_data(path):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zipfile(path))
    except CheckpointError:
        raise
    except Exception as error:  # torch raises a dozen classes, depending on which bytes are wrong
        said = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or repr(error)
        raise CheckpointError(f"{path}: cannot be read as weights: {said.splitlines()[0]}") from error


@contextmanager
def plain_data(source: str | Path) -> Iterator[None]:
    """Let `torch.load(weights_only=True)` read numpy's numbers and arrays, too, and name any other class it refuses.

    It is for published files, by whatever library they are read. Nothing in them is called but what rebuilds tensors,
    numbers and arrays.

    Raises:
        CheckpointError: naming the class or function that the file of `source` asks for.
    """
    try:
        with safe_globals(NUMPY_GLOBALS):
            yield
    except UnpicklingError as error:
        refused = re.search(r"(?:GLOBAL |<class ')([\w.]+)", str(error))
        if not refused:
            raise
        raise CheckpointError(
            f"{source}: cannot be read as weights: found {refused[1]}, expected tensors, numbers, texts, lists and "
            "dictionaries alone; reading it would run code of the file's choice. If you trust its source, save the "
            "part that is expected without it: content = torch.load(file, weights_only=False), then torch.save"
        ) from error


def load_weights(model: nn.Module, directory: str | Path) -> None:
    """Fill `model` from `model.safetensors` in `directory`; every tensor must be there in its shape, and no other.

    Raises:
        CheckpointError: if the file is missing or damaged; naming the tensors that do not fit (`tensor_misfits`), or
            those that no training leaves: with values that are not finite, or too large to be squared.
    """
    path = Path(directory) / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path}: {missing(path)}; {REMEDY}")
    refuse_unreadable(path)
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged ({error}); {REMEDY}") from error
    wanted = model.state_dict()
    stored = {wanted[name].data_ptr() for name in found if name in wanted}
    tied = {name for name, tensor in wanted.items() if tensor.data_ptr() in stored}
    if misfits := tensor_misfits(found, wanted, optional=tied):
        raise CheckpointError(f"{path}: {misfits}")
    if broken := [name for name, tensor in found.items() if not _is_usable(tensor)]:
        raise CheckpointError(
            f"{path}: found values that are not finite, or beyond all bounds, in {', '.join(broken[:SHOWN])}"
            f"{f' and {len(broken) - SHOWN} more' if len(broken) > SHOWN else ''}; {REMEDY}"
        )
    model.load_state_dict(found, strict=False)


def _is_usable(tensor: Tensor) -> bool:
    """Return whether the squares of all values are finite, which one pass over them tells."""
    if not tensor.is_floating_point():
        return True
    return bool(torch.linalg.vector_norm(tensor, dtype=torch.float32).isfinite())


def tensor_misfits(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    optional: Collection[str] = (),
    same_dtype: bool = False,
) -> str:
    """Describe what keeps tensors from being exactly those that a model wants; empty if nothing does.

    Args:
        found: tensors by name, as read from a file.
        wanted: tensors of the right shapes and dtypes by name, such as a model's state_dict; on any device, also meta.
        optional: names that may be missing, such as those of tied weights, of which a file holds one.
        same_dtype: compare dtypes, too.

    Returns:
        The first five of the names that are missing, that are unexpected, and the shapes that differ.
    """

    def kind(tensor: Tensor) -> str:
        return f"{tensor.dtype} {list(tensor.shape)}" if same_dtype else f"{list(tensor.shape)}"

    misfits = [f"missing {name}" for name in wanted if name not in found and name not in optional]
    misfits += [f"unexpected {name}" for name in found if name not in wanted]
    misfits += [
        f"{name} is {kind(tensor)}, expected {kind(wanted[name])}"
        for name, tensor in found.items()
        if name in wanted and kind(tensor) != kind(wanted[name])
    ]
    return "; ".join(misfits[:SHOWN]) + (f" and {len(misfits) - SHOWN} more" if len(misfits) > SHOWN else "")
