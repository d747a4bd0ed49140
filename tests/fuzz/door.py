"""What a door is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np

from tests.fuzz.mutations import mutate


class Door(ABC):
    """A kind of input: good files in `folder`, of which one is mutated at a time, and what opens them."""

    name: ClassVar[str]
    together: ClassVar[bool] = False  # whether opening one file opens all of them

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    @abstractmethod
    def write(self) -> list[Path]:
        """Write the good files, and return those that are mutated."""

    @abstractmethod
    def open(self, path: Path) -> None:
        """Open what `path` is a part of, as the commands do; raise InputError if it cannot be used."""

    def mutate(self, content: bytes, rng: np.random.Generator) -> bytes:
        """Return a content with random mutations."""
        return mutate(content, rng)

    def close(self) -> None:  # noqa: B027
        """Stop what `write` started. Most doors start nothing."""
