"""Read indices of format 1, which versions up to 0.2 wrote: all paths in one JSON file, all rows read into memory.

They are converted when they are next saved.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..files import CheckpointError
from .captioner_fusion import CODES
from .index_columns import ragged

FRAMES = "captioners/frames"  # [N] on disk, where codes of all clips lie one after another


class Format1Record(BaseModel):
    """collection.json of format 1: the files of an index, and where their embeddings are."""

    model_config = ConfigDict(extra="forbid")
    format: int
    retrievers: dict[str, str]  # name to the checksum of its weights
    embeddings: str = "collection.safetensors"  # file beside this one; the default is that of early versions
    paths: list[str]
    stamps: list[str] = []  # one for each path
    captioners: dict[str, str] = {}  # name to the checksum of the weights of those that something is kept for
    codes: str | None = None  # file of all clips' codes

    def read(self, path: Path, remedy: str) -> dict[str, np.ndarray]:
        """Return the arrays beside this record, with a row each for each path, by name.

        Args:
            path: of the record.
            remedy: what the user can do, for the message.

        Raises:
            CheckpointError: if a file is missing or damaged, or does not belong to the record.
        """
        for name in (self.embeddings, self.codes):
            if name and not (path.parent / name).is_file():
                raise CheckpointError(f"{path}: {name} is not beside it; {remedy}")
        file = path.parent / self.embeddings
        try:
            arrays = load_file(file)
            if self.codes:
                arrays[CODES] = _codes(np.load(path.parent / self.codes, mmap_mode="r"), arrays.pop(FRAMES))
        except (SafetensorError, ValueError, KeyError) as error:
            raise CheckpointError(f"{file}: damaged ({error}); {remedy}") from error
        rows = {name: len(vectors) for name, vectors in arrays.items()}
        if {name for name in rows if "/" not in name} != {*self.retrievers} or {*rows.values()} - {len(self.paths)}:
            raise CheckpointError(f"{path}: {len(self.paths)} paths, but embeddings {rows} beside it; {remedy}")
        return arrays


def _codes(flat: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return the codes of each clip, of those of all clips one after another, which stay on disk until read."""
    if frames.sum() != len(flat):
        raise ValueError(f"{len(flat)} frames of codes, expected {frames.sum()}")
    return ragged(np.split(flat, np.cumsum(frames)[:-1]))
