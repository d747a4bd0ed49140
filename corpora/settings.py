"""The contract of a corpus: the settings that all have in common, and the reading of a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from corpora.table import CorpusTable

Split = Literal["train", "validation", "test"]

# The names that published corpora give the splits. Only Clotho's "development" is a training split; its adapter knows.
SPLIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "evaluation", "eval"),
}


class CorpusSettings(BaseModel, ABC):
    """A corpus in an experiment file: unknown keys are errors.

    `paths` are its settings that are paths; `licence` is what a bundle's NOTICE says of weights trained on it;
    `overlaps` names the test sets that have clips of it, which is what exclusion lists are for.
    """

    model_config = ConfigDict(extra="forbid")
    paths: ClassVar[tuple[str, ...]] = ("root",)
    licence: ClassVar[str] = "see the corpus's own licence"
    overlaps: ClassVar[str] = ""

    root: str = Field(description="folder of the corpus, absolute on a cluster")

    @property
    def folder(self) -> Path:
        """Return `root` as an absolute path."""
        return Path(self.root).absolute()

    @abstractmethod
    def read(self, split: str) -> CorpusTable:
        """Read one split: its clips, and those that were set aside with the reason.

        Raises:
            CorpusError: if a file or folder that the split needs is missing or malformed.
        """

    def exclusion_lists(self) -> list[Path]:
        """Return the files next to the corpus that name clips which no corpus may train on (`corpora.exclusions`)."""
        return []
