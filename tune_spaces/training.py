"""The search spaces of training a member: its fields, by the name of the space (each kind of member has its own).

A field's domain is made from the member's own value: a good learning rate depends on whether weights are loaded or new,
how far around it to search does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import tune

Domain = Callable[[Any], Any]


def _times(factor: float) -> Domain:
    """Search from the own value / factor to the own value * factor, evenly in the logarithm."""
    return lambda own: tune.loguniform(own / factor, own * factor)


def _between(low: float, high: float) -> Domain:
    """Search evenly between two bounds, or from or to the own value where it is outside."""
    return lambda own: tune.uniform(min(low, own), max(high, own))


def _among(*others: Any) -> Domain:
    """Choose among the own value and others."""
    return lambda own: tune.choice([own, *(other for other in others if other != own)])


_OPTIMISER: dict[str, Domain] = {
    "training.learning_rate": _times(4),
    "training.weight_decay": _between(0.0, 0.1),
}

SPACES: dict[str, dict[str, Domain]] = {
    "retriever": {**_OPTIMISER, "epsilon": _times(2), "dropout": _between(0.0, 0.4)},
    "captioner": {
        **_OPTIMISER,
        "mcm_weight": _between(0.0, 1.0),
        "mcm_probability": _between(0.05, 0.4),
        "label_smoothing": _between(0.0, 0.3),
    },
    "fluency-detector": _OPTIMISER,
    "learning-rate": {"training.learning_rate": _times(10)},
    "audio-encoder": {"audio_encoder.backbone": _among("convnext_tiny", "convnext_nano", "resnet50")},
    "text-encoder": {"text_encoder.name": _among("BAAI/bge-base-en-v1.5", "bert-base-uncased", "roberta-base")},
}
