"""How likely all captioners together find a candidate."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from .base import MemberNames, Score, ScoringContext

JOINT = ("joint_score/mean", "joint_score/mixture")


class JointScore(Score):
    """Two averages of the captioners' likelihoods of a token (see `joint`); no column for a captioner alone."""

    name = "joint"

    def columns(self, members: MemberNames) -> list[str]:
        return list(JOINT) if len(members.captioners) > 1 else []

    def captioners_asked(self, columns: Collection[str], members: MemberNames) -> Collection[str]:
        return members.captioners if {*columns} & {*JOINT} else ()

    def values(self, context: ScoringContext) -> np.ndarray:
        return joint(context.likelihoods)


def joint(likelihoods: np.ndarray) -> np.ndarray:
    """Join mean log-likelihoods of a token [captioners, ...], as [2, ...].

    The first is their mean (a product of experts), which a single captioner can veto; the second the log of their mean
    likelihood (a mixture), for which one captioner that is sure suffices.
    """
    mixture = np.logaddexp.reduce(likelihoods, axis=0) - np.log(len(likelihoods))
    return np.stack([likelihoods.mean(0), mixture])
