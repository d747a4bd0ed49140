"""FENSE's published error detector (arXiv 2110.04684, section 3.2) as weights of our fluency detector.

Files: `echecker_clotho_audiocaps_base.ckpt` and `echecker_clotho_audiocaps_tiny.ckpt` (github.com/blmoistawinde/fense,
release V0.1), each `{"model_type": hub id of the encoder, "num_classes": 6, "state_dict": tensors}`: a BERT, and a
linear layer on its first token. The six outputs are independent: five types of damage, and whether there is any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ..checkpoint import read_tensors, tensor_misfits
from ..files import CheckpointError

OUTPUTS = ("add_tail", "repeat_event", "repeat_adv", "remove_conj", "remove_verb", "error")
EXPECTED = "expected FENSE's error detector, such as echecker_clotho_audiocaps_base.ckpt"
OLD_BUFFER = "encoder.embeddings.position_ids"  # saved by transformers before 4.31
NAMES = {"text_encoder.model.": "encoder.", "head.": "clf."}  # ours and the published ones


@dataclass(frozen=True)
class FenseCheckpoint:
    """What a published file holds."""

    model_type: str  # hub id of the encoder that it was trained from, whose config and tokenizer it needs
    weights: dict[str, Tensor]  # by published name


def read_fense_checkpoint(path: str | Path, mapped: bool = False) -> FenseCheckpoint:
    """Read a published file; `mapped` as in `read_tensors`.

    Raises:
        CheckpointError: if it is missing, damaged or of another layout.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {EXPECTED} (`aac-metrics-download` gets it)")
    content = read_tensors(path, mapped)
    keys = set(content) if isinstance(content, dict) else set()
    if missing := [key for key in ("model_type", "num_classes", "state_dict") if key not in keys]:
        found = f"a dictionary of {', '.join(map(repr, content))}"[:200] if keys else type(content).__name__
        raise CheckpointError(f"{path}: found {found}, without {', '.join(missing)}; {EXPECTED}")
    if content["num_classes"] != len(OUTPUTS):
        raise CheckpointError(
            f"{path}: num_classes is {content['num_classes']}, expected {len(OUTPUTS)}: {', '.join(OUTPUTS)}"
        )
    state = content["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"{path}: state_dict is {type(state).__name__}, expected tensors by name; {EXPECTED}")
    weights = {name: tensor for name, tensor in state.items() if name != OLD_BUFFER}
    return FenseCheckpoint(content["model_type"], weights)


def load_fense_weights(detector: nn.Module, path: str | Path, encoder: str) -> None:
    """Fill a FluencyDetector with six outputs.

    Args:
        encoder: name or directory of the encoder whose config it was laid out by, for the error.

    Raises:
        CheckpointError: if the file is missing or of another layout; naming the tensors that are missing, unexpected,
            or of other shapes than this encoder's.
    """
    checkpoint = read_fense_checkpoint(path)
    ours = {_published_name(name): name for name in detector.state_dict()}
    wanted = {published: detector.state_dict()[name] for published, name in ours.items()}
    if misfits := tensor_misfits(checkpoint.weights, wanted):
        raise CheckpointError(
            f"{path}: {misfits}. It was trained from {checkpoint.model_type!r}, and text_encoder is {encoder!r}: give "
            "that hub id there, or a directory with its config.json and tokenizer"
        )
    detector.load_state_dict({ours[name]: tensor for name, tensor in checkpoint.weights.items()})


def plain_words(text: str) -> str:
    """Return a text as the published detector reads it: lower case, without punctuation."""
    return re.sub(r"[^\w\s]", "", text).lower()


def _published_name(name: str) -> str:
    ours = next(prefix for prefix in NAMES if name.startswith(prefix))
    return NAMES[ours] + name.removeprefix(ours)
