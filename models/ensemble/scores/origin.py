"""Who proposed a candidate, and how."""

from __future__ import annotations

import numpy as np

from ...generation.pooling import BEAM, captioner_of, proposers
from .base import MemberNames, Score, ScoringContext

ORIGIN = "origin_score/"  # before a caption source's name, and `beam`


class OriginScore(Score):
    """Columns of 1 and 0: `beam` where a search found the text, `<source>` where that caption source proposed it.

    A text that several proposed counts for each of them. A caption source that is alone has no column of its own.
    """

    name = "origin"
    of_pool = True

    def columns(self, members: MemberNames) -> list[str]:
        sources = members.caption_sources if len(members.caption_sources) > 1 else ()
        return [ORIGIN + name for name in ("beam", *sources)]

    def values(self, context: ScoringContext) -> np.ndarray:
        proposed = [proposers(names) for names in context.captioners]
        found = [[any(name.endswith(BEAM) for name in names) for names in proposed]]
        sources = [{captioner_of(name) for name in names} for names in proposed]
        for column in self.columns(context.members)[1:]:
            found.append([column.removeprefix(ORIGIN) in names for names in sources])
        return np.array(found, float)
