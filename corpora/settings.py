"""The contract of a corpus: the settings that all have in common, and the reading of a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Terms:
    """What a corpus's licence says, and whether it allows commercial use; None where that is not known."""

    licence: str
    commercial_use: bool | None = None


class CorpusSettings(BaseModel, ABC):
    """A corpus in an experiment file: unknown keys are errors, and so are numbers that are not finite.

    `paths` are its settings that are paths; `terms` is what a bundle's NOTICE says of weights trained on it; `overlaps`
    names the test sets that have clips of it, which is what exclusion lists are for.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    paths: ClassVar[tuple[str, ...]] = ("root",)
    terms: ClassVar[Terms] = Terms("see the corpus's own licence")
    overlaps: ClassVar[str] = ""

    root: str = Field(description="folder of the corpus, absolute on a cluster")
    caption_noise: float = Field(
        0.0,
        ge=0,
        le=1,
        exclude_if=lambda value: not value,  # as in runs from before there was noise
        description="share of the training clips that are given the captions of another one, always the same clips: "
        "noise made on purpose, to learn what it costs",
    )

    def stated_terms(self) -> Terms:
        """Return what is known of its licence; by default `terms`."""
        return self.terms

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

    def labels(self, split: str) -> dict[str, tuple[str, ...]]:
        """Return the sound events or classes of the clips of a split, by clip_id; none where the corpus knows none.

        Raises:
            CorpusError: if a file that has them is missing or malformed.
        """
        return {}

    def exclusion_lists(self) -> list[Path]:
        """Return the files next to the corpus that name clips which no corpus may train on (`corpora.exclusions`)."""
        return []


class OwnCorpusSettings(CorpusSettings):
    """A corpus of the user's own, who alone knows its licence."""

    licence: str | None = Field(
        None, description="what may be done with the recordings and captions; a bundle's `NOTICE` repeats it"
    )
    commercial_use: bool | None = Field(
        None,
        description="whether the licence allows commercial use; if none, it is unknown, and `enclap export "
        "--commercial` refuses members trained on it",
    )

    def stated_terms(self) -> Terms:
        """Return the licence that the experiment states."""
        return Terms(self.licence or self.terms.licence, self.commercial_use)
