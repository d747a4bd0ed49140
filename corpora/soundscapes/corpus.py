"""The built-in corpus in an experiment file; apart from its synthesis, so that reading a config does not load scipy."""

from __future__ import annotations

from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from corpora.folder import read_folder
from corpora.settings import CorpusSettings, Split


class SoundscapesCorpus(CorpusSettings):
    """The built-in corpus, rendered into `root` on first use: so many clips a split."""

    kind: Literal["soundscapes"]
    splits: dict[Split, Annotated[int, Field(ge=2)]]
    seed: int = 0
    sample_rate: int = Field(16_000, gt=0, description="Hz of the rendered files")

    def read(self, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """`corpora.folder.read_folder` of one split, once it is rendered."""
        return read_folder(self.root, split)
