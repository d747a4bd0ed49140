"""Find embeddings that have collapsed: texts or clips that are all but alike, so that none of them can be told apart.

The measure is the mean cosine of all pairs of different items. It does not change with the scale of the embeddings, nor
with their number. Trained retrievers of the built-in corpus have 0.1 to 0.2, untrained text encoders 0.94 to 0.97.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

ALIKE = 0.95  # from this mean cosine on, embeddings count as collapsed
FEWEST = 20  # below, the items themselves may be alike
ROWS_AT_ONCE = 65_536
VALUES = {"text_cosine": "texts", "audio_cosine": "clips"}  # what the measure is called, and what it is of


def mean_cosine(embeddings: np.ndarray) -> float:
    """Return the mean cosine of all pairs of different rows of embeddings [N, D], in -1 .. 1; NaN for fewer than two.

    It is computed from the sum s of the unit vectors, (s·s - N) / (N (N - 1)), in one pass over the rows. Rows of
    zeros, which have no direction, are left out.
    """
    total, number = np.zeros(embeddings.shape[1]), 0
    for at in range(0, len(embeddings), ROWS_AT_ONCE):
        rows = embeddings[at : at + ROWS_AT_ONCE]
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        directed = norms[:, 0] > 0
        total += (rows[directed] / norms[directed]).sum(0, dtype=np.float64)
        number += int(directed.sum())
    return float(total @ total - number) / (number * (number - 1)) if number > 1 else float("nan")


def mean_cosines(**embeddings: np.ndarray) -> dict[str, float]:
    """Return the `mean_cosine` of each of some embeddings [N, D], of those that are enough to tell (`FEWEST`)."""
    return {name: mean_cosine(rows) for name, rows in embeddings.items() if len(rows) >= FEWEST}


def collapse_warnings(values: Mapping[str, float]) -> list[str]:
    """Return a warning for each of `text_cosine` and `audio_cosine`, where they are there, that tells of a collapse."""
    return [
        f"the embeddings of {what} are all but alike (mean cosine {values[name]:.3f}, expected below {ALIKE}), so "
        "retrieval is little better than chance"
        for name, what in VALUES.items()
        if values.get(name, 0.0) >= ALIKE
    ]
