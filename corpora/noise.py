"""Give training clips the captions of others: noise made on purpose, as large corpora with weak captions have it."""

from __future__ import annotations

import numpy as np
import pandas as pd

SEED = 0


def with_caption_noise(clips: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return `CorpusTable.clips` in which a share of the clips, at least two, have the captions of another of these.

    Args:
        share: from 0 to 1. The clips depend on the number of clips alone, so that they are the same in every run.
    """
    number = round(share * len(clips))
    if number < 2:
        return clips
    rows = np.random.default_rng(SEED).permutation(len(clips))[:number]
    captions = clips["captions"].to_numpy(object).copy()
    captions[rows] = captions[np.roll(rows, 1)]
    return clips.assign(captions=captions)
