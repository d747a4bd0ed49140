"""The scores that reranking weighs. To add one, write a file with a subclass of `Score`, and list it here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .base import Score, ScoringContext
from .decoder import DecoderScore
from .encoder import EncoderScore

SCORES: tuple[Score, ...] = (
    EncoderScore(),
    DecoderScore(),
)


def score_columns(retrievers: Sequence[str]) -> list[str]:
    """Return the columns of all scores, in order."""
    return [column for score in SCORES for column in score.columns(retrievers)]


def columns_among(names: Iterable[str]) -> list[str]:
    """Return those of a file's columns that are scores, in the order of `score_columns`."""
    found = list(names)
    return [column for score in SCORES for column in found if score.owns(column)]


def either_sign(column: str) -> bool:
    """Return whether the weight of a column may be negative."""
    return any(score.either_sign for score in SCORES if score.owns(column))


def score_all(context: ScoringContext) -> dict[str, np.ndarray]:
    """Return the values [N] of all scores by column, in the order of `score_columns`."""
    values: dict[str, np.ndarray] = {}
    for score in SCORES:
        if columns := score.columns(list(context.retrievers)):
            values |= zip(columns, np.reshape(score.values(context), (len(columns), -1)), strict=True)
    return values
