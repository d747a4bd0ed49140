"""How likely each captioner finds a candidate, whoever proposed it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from .base import MemberNames, Score, ScoringContext

LIKELIHOOD = "likelihood_score/"  # before a captioner's name


class LikelihoodScore(Score):
    """The mean log-likelihood of a token, EOS counted, under every captioner; one column each.

    Of its own captions it is that of the tokens that the captioner drew, of the others that of the text's tokens.
    """

    name = "likelihood"

    def columns(self, members: MemberNames) -> list[str]:
        return [LIKELIHOOD + name for name in members.captioners]

    def captioners_asked(self, columns: Collection[str], members: MemberNames) -> Collection[str]:
        return [name for name in members.captioners if LIKELIHOOD + name in columns]

    def values(self, context: ScoringContext) -> np.ndarray:
        return context.likelihoods
