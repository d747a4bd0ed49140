"""The scores that reranking weighs. To add one, write a file with a subclass of `Score`, and list it here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from .base import MemberNames, Score, ScoringContext, weight_name
from .consensus import ConsensusScore
from .decoder import DecoderScore
from .encoder import EncoderScore
from .fluency import FluencyScore
from .joint import JointScore
from .length import LengthScore
from .likelihood import LikelihoodScore
from .origin import OriginScore
from .rank import RankScore

SCORES: tuple[Score, ...] = (
    EncoderScore(),
    DecoderScore(),
    LikelihoodScore(),
    JointScore(),
    ConsensusScore(),
    LengthScore(),
    OriginScore(),
    FluencyScore(),
    RankScore(),
)
ALWAYS = (SCORES[0], SCORES[1])  # the paper's, which come at no cost with the candidates


def score_columns(members: MemberNames) -> list[str]:
    """Return the columns of all scores, in order."""
    return [column for score in SCORES for column in score.columns(members)]


def needed_columns(members: MemberNames, weights: Mapping[str, float]) -> list[str]:
    """Return the columns to compute where candidates are chosen by these weights: the paper's, and those weighed."""
    weighed = {name for name, weight in weights.items() if weight}
    paper = {column for score in ALWAYS for column in score.columns(members)}
    return [column for column in score_columns(members) if column in paper or weight_name(column) in weighed]


def captioners_asked(columns: Collection[str], members: MemberNames) -> list[str]:
    """Return the captioners whose likelihoods of all candidates these columns need."""
    asked = {name for score in SCORES for name in score.captioners_asked(columns, members)}
    return [name for name in members.captioners if name in asked]


def compares_candidates(columns: Collection[str]) -> bool:
    """Return whether one of these columns looks at all candidates of a clip (`Score.of_pool`)."""
    return any(score.of_pool and score.owns(column) for score in SCORES for column in columns)


def needs_references(columns: Collection[str]) -> bool:
    """Return whether one of these columns compares with reference clips (`Scorers.references`)."""
    return any(score.needs_references and score.owns(column) for score in SCORES for column in columns)


def columns_among(names: Iterable[str]) -> list[str]:
    """Return those of a file's columns that are scores, in the order of `score_columns`."""
    found = list(names)
    return [column for score in SCORES for column in found if score.owns(column)]


def kind_of(column: str) -> str:
    """Return the name of the score that a column is of."""
    return column.partition("/")[0].removesuffix("_score")


def either_sign(column: str) -> bool:
    """Return whether the weight of a column may be negative."""
    return any(score.either_sign for score in SCORES if score.owns(column))


def score_all(context: ScoringContext, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Return the values [N] of scores by column, in the order of `score_columns`; a score not wanted is not computed.

    Args:
        wanted: columns; all when left out.
    """
    values: dict[str, np.ndarray] = {}
    for score in SCORES:
        columns = score.columns(context.members)
        asked = [column for column in columns if wanted is None or column in wanted]
        if asked:
            found = dict(zip(columns, np.reshape(score.values(context), (len(columns), -1)), strict=True))
            values |= {column: found[column] for column in asked}
    return values
