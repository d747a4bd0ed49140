"""What the settings of every corpus have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "validation", "test"]

# What published corpora call the splits. Only Clotho's "development" is a training split; its adapter knows.
SPLIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "evaluation", "eval"),
}


class CorpusSettings(BaseModel):
    """A corpus in an experiment file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")

    root: str = Field(description="folder of the corpus, absolute on a cluster")

    @property
    def folder(self) -> Path:
        """`root`, absolute."""
        return Path(self.root).absolute()

    def exclusion_lists(self) -> list[Path]:
        """Files that lie with the corpus and name clips that no corpus may train on (`corpora.exclusions`)."""
        return []
