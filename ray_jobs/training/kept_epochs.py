"""Which epochs of a training are kept: the best by the value that it is monitored by."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

KEPT = "epochs"  # the directory of the kept ones, each under its number


def best_epochs(scores: list[float], number: int) -> list[int]:
    """The numbers, from 1 on, of the best epochs, best first, the earlier of equals first."""
    return sorted(range(1, len(scores) + 1), key=lambda epoch: -scores[epoch - 1])[:number]


def keep_best(model: Any, directory: Path, scores: list[float], number: int) -> None:
    """Save the model of the last epoch if it is among the best, and remove what no longer is."""
    best = best_epochs(scores, number)
    if len(scores) in best:
        model.save(directory / str(len(scores)))
    for kept in directory.iterdir():
        if int(kept.name) not in best:
            shutil.rmtree(kept)


def epochs_without_gain(scores: list[float]) -> int:
    """How many epochs at the end came after the first of the best."""
    return len(scores) - best_epochs(scores, 1)[0] if scores else 0
