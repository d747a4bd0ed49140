"""The search spaces of drawing candidates: fields of an experiment's `sampling`, by the name of the space."""

from __future__ import annotations

from typing import Any

from ray import tune

_DOMAINS: dict[str, Any] = {
    "temperature": tune.uniform(0.2, 1.0),
    "top_p": tune.uniform(0.7, 1.0),
    "top_k": tune.choice([0, 10, 25, 50, 100]),
    "candidates": tune.choice([10, 20, 30, 50]),
    "typical_p": tune.uniform(0.2, 1.0),
    "repetition_penalty": tune.uniform(1.0, 1.5),
}


def _space(*fields: str) -> dict[str, Any]:
    return {field: _DOMAINS[field] for field in fields}


# A field that `sampling` does not have is left out of a search.
SPACES: dict[str, dict[str, Any]] = {
    "nucleus": _space("temperature", "top_p"),
    "truncation": _space("temperature", "top_p", "top_k", "typical_p"),
    "wide": _space(*_DOMAINS),
}
