"""Find what a retrieval takes for what: which clips come first for captions of others, and of which class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ray_jobs.features.dataset import Features
from ray_jobs.results.metrics import EnsembleMetrics
from ray_jobs.results.table import read_table

RANKING = "retrieval.csv"
SHOWN = 20  # rows of a table


@dataclass(frozen=True)
class Confusions:
    """What comes first for queries, the captions of clips, in the place of the clip that they describe.

    Attributes:
        queries: number of captions.
        right: those for which their own clip comes first.
        clips: columns `clip` (file name) and `queries`, captions of other clips for which it comes first.
        classes: columns `asked`, `found` and `queries`: captions of clips with the class `asked`, for which a clip
            comes first that lacks it and has the class `found`, which theirs lacks. Empty where none are known.
    """

    queries: int
    right: int
    clips: pd.DataFrame
    classes: pd.DataFrame


def confusions(ensemble: Path, features: Features, classes: Sequence[Sequence[str]]) -> Confusions:
    """Count the confusions of the ensemble among some first clips of the test split.

    Args:
        ensemble: directory with `retrieval.csv`, a row for each caption, clip by clip.
        features: of the clips. Captions for which none of these comes first are left out.
        classes: of each clip.
    """
    asked = np.repeat(np.arange(len(features)), [len(captions) for captions in features.captions])
    ranking = read_ranking(ensemble)["fname_1"].head(len(asked))
    place = {name: clip for clip, name in enumerate(features.file_names)}
    found = ranking.map(place).fillna(-1).to_numpy(int)
    asked, found = asked[found >= 0], found[found >= 0]
    wrong = asked != found
    of_clips = Counter(found[wrong].tolist())
    pairs = Counter(
        (one, other)
        for clip, first in zip(asked[wrong].tolist(), found[wrong].tolist(), strict=True)
        for one in classes[clip]
        if one not in classes[first]
        for other in classes[first]
        if other not in classes[clip]
    )
    names = features.file_names
    return Confusions(
        queries=len(asked),
        right=int((~wrong).sum()),
        clips=_table([(names[clip], number) for clip, number in of_clips.most_common(SHOWN)], ["clip"]),
        classes=_table([(*pair, number) for pair, number in pairs.most_common(SHOWN)], ["asked", "found"]),
    )


def read_ranking(ensemble: Path) -> pd.DataFrame:
    """Return the ten best clips of each caption of the test split, clip by clip: `caption`, `fname_1` to `fname_10`."""
    return read_table(ensemble / RANKING, EnsembleMetrics.COMMAND, ("caption", "fname_1"))


def _table(rows: list[tuple[str | int, ...]], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[*columns, "queries"])
