"""Keep the models of a training's best epochs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

KEPT = "epochs"  # directory of the kept models, each under its epoch's number


def best_epochs(scores: list[float], number: int) -> list[int]:
    """Return the numbers, from 1 on, of the best epochs: best first, the earlier of equals first."""
    return sorted(range(1, len(scores) + 1), key=lambda epoch: -scores[epoch - 1])[:number]


def keep_best(model: Any, directory: Path, scores: list[float], number: int) -> None:
    """Save the model of the last epoch if it is among the best, and remove those that no longer are."""
    best = best_epochs(scores, number)
    if len(scores) in best:
        model.save(directory / str(len(scores)))
    for kept in directory.iterdir():
        if int(kept.name) not in best:
            shutil.rmtree(kept)


def epochs_without_gain(scores: list[float]) -> int:
    """Return the number of epochs after the best one."""
    return len(scores) - best_epochs(scores, 1)[0] if scores else 0
