"""Look at the files of published models: whether all are there, and whether they can be read."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name

from transformers import AutoConfig, AutoTokenizer

from models.checkpoint import naming, read_tensors
from models.files import CheckpointError
from models.hub import PARTS, local_file
from models.metrics.captions import CHECKER, checker_path
from models.records import parse_object
from ray_jobs.diagnosis.finding import Finding

AGAIN = "copy or download it again"
DOWNLOAD = "hf download"
WITHOUT_WEIGHTS = " --include '*.json' --include '*.txt' --include '*.model'"


def checkpoint(key: str, path: str, reader: str) -> Finding:
    """Return a published checkpoint, at which its own loader looks.

    Args:
        key: dotted key of the setting.
        reader: module and function that reads it, or only looks at it where `mapped` is true.
    """
    there = Path(path).exists()
    missing = _refusal(lambda: resolve_name(reader)(path, mapped=True)) if there else f"no {path}"
    return Finding.of(key, "published weights", path, missing, _copy(path) or put(key))


def model(key: str, name: str, parts: Sequence[str]) -> Finding:
    """Return a model that transformers or timm loads from a directory, or by its hub id from the hub's cache.

    Args:
        key: dotted key of the setting.
        parts: those of `models.hub.PARTS` that it is loaded from.
    """
    files = {part: file for part in parts if (file := local_file(name, PARTS[part]))}
    lacking = [part for part in parts if part not in files]
    folder = str(next(iter(files.values())).parent) if files else name
    if os.path.isdir(name) or Path(name).is_absolute():
        command = put(key)
        missing = f"no {' and no '.join(lacking)} in {name}" if os.path.isdir(name) else f"no {name}"
    else:
        command = f"{DOWNLOAD} {name}" + ("" if "weights" in parts else WITHOUT_WEIGHTS)
        missing = f"{name} is neither a directory nor in the Hugging Face cache with {' and '.join(lacking)}"
    purpose = f"model {name}" if "weights" in parts else f"layout of {name}"
    return Finding.of(key, purpose, folder, missing if lacking else _refusal(lambda: _look_at(files)), command)


def put(key: str) -> str:
    """Return what to do about a path where nothing is, or nothing that can be used."""
    return f"put it there, or add {key}=PATH to the command"


def _copy(path: str) -> str:
    """Return the command that gets FENSE's error checker into its place; nothing for any other file."""
    if Path(path).name != CHECKER:
        return ""
    source, folder = shlex.quote(str(checker_path())), shlex.quote(str(Path(path).parent))
    copy = f"mkdir -p {folder} && cp {source} {shlex.quote(path)}"
    return copy if checker_path().is_file() else f"aac-metrics-download && {copy}"


def _refusal(look: Callable[[], object]) -> str:
    """Return what a loader says against files; empty where it takes them."""
    try:
        look()
    except CheckpointError as error:
        return str(error)
    return ""


def _look_at(files: Mapping[str, Path]) -> None:
    """Check that a model's configuration and tokenizer can be read, and its weights without reading all of them."""
    if config := files.get("config.json"):
        with naming(config, AGAIN):
            AutoConfig.from_pretrained(config.parent, local_files_only=True)
    if tokenizer := files.get("tokenizer"):
        with naming(tokenizer, AGAIN):
            AutoTokenizer.from_pretrained(tokenizer.parent, local_files_only=True)
    for file in _shards(files["weights"]) if "weights" in files else ():
        if not file.is_file():
            raise CheckpointError(f"no {file}, which {files['weights'].name} names")
        read_tensors(file, mapped=True)


def _shards(weights: Path) -> list[Path]:
    """Return the files that hold a model's weights: one, or those that an index names."""
    if weights.suffix != ".json":
        return [weights]
    index = parse_object(weights.read_bytes(), weights, AGAIN)
    return sorted({weights.parent / name for name in index.get("weight_map", {}).values()})
