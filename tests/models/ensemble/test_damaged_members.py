"""Members whose files do not fit each other, whose checksums say that they are as they were exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.ensemble import Ensemble
from models.ensemble.checksums import write_sums
from models.files import CheckpointError
from tests.small_bundle import write_bundle, write_sounds

Change = Callable[[dict[str, Any]], object]
TEXTS = "members/fluency/text_encoder"
LANGUAGE = "members/captioner/language_model"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def caption(bundle: Path) -> None:
    names = [str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()]
    write_sums(bundle, [name for name in names if name != "MANIFEST.json"])
    Ensemble.load(bundle, "cpu").caption(write_sounds(bundle.parent / "sounds", 1))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (f"{TEXTS}/tokenizer_config.json", lambda said: said.pop("pad_token"), r"the tokenizer has no pad_token"),
        (f"{TEXTS}/tokenizer_config.json", lambda said: said.update(pad_token="~"), r"tokens, expected \d+ at most"),
        (f"{LANGUAGE}/tokenizer_config.json", lambda said: said.pop("eos_token"), r"the tokenizer has no eos_token"),
        (f"{LANGUAGE}/tokenizer_config.json", lambda said: said.update(eos_token="~"), r"tokens, expected \d+ at most"),
        (f"{TEXTS}/config.json", lambda said: said.update(num_attention_heads=3), "not a multiple of the number of"),
        ("members/retriever/config.json", lambda said: said["audio_encoder"].update(dims=[10**20] * 4), "Overflow"),
    ],
)
def test_what_does_not_fit_is_named(file: str, change: Change, message: str, bundle: Path) -> None:
    said = json.loads((bundle / file).read_text())
    change(said)
    (bundle / file).write_text(json.dumps(said))
    named = file if file.startswith("members/retriever") else str(Path(file).parent)
    with pytest.raises(CheckpointError, match=rf"{named}: cannot be read \(.*{message}"):
        caption(bundle)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 3e38])
def test_weights_that_no_training_leaves_are_named(value: float, bundle: Path) -> None:
    path = bundle / "members" / "retriever" / "model.safetensors"
    weights = load_file(path)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].view(-1)[0] = torch.tensor(value)
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=rf"{path}: found values that are not finite, or beyond .*, in {name};"):
        caption(bundle)
