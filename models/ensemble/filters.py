"""Say which files of an index a search is for: by name, folder and duration."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from unicodedata import normalize

import numpy as np

from ..errors import InputError
from .index_files import FileTable


@dataclass(frozen=True)
class Where:
    """Conditions that a file meets, all of them.

    An accent may be a part of its letter or a sign after it, as in names of files from macOS: both are one name.

    Attributes:
        name: a pattern as of a shell (`rain*.wav`), which the whole name of the file fits, without its folders.
        folder: the file is in this folder, at any depth.
        min_duration_s: of the whole file, also where its windows are indexed.
        max_duration_s: likewise.

    Raises:
        InputError: naming the condition that is no text or number of seconds, or the shortest that is over the longest.
    """

    name: str | None = None
    folder: str | None = None
    min_duration_s: float | None = None
    max_duration_s: float | None = None

    def __post_init__(self) -> None:
        for what in ("name", "folder"):
            text, kinds = getattr(self, what), (str,) if what == "name" else (str, os.PathLike)
            if text is not None and not (isinstance(text, kinds) and str(text) and "\0" not in str(text)):
                raise InputError(f"{what}: found {text!r}, expected a {'text' if what == 'name' else 'path'}")
        for limit in ("min_duration_s", "max_duration_s"):
            seconds = getattr(self, limit)
            if seconds is not None and not (isinstance(seconds, int | float | np.number) and seconds >= 0):
                raise InputError(f"{limit}: found {seconds!r}, expected seconds, 0 or more")
        if self.shortest > self.longest:
            raise InputError(
                f"min_duration_s: found {self.shortest}, expected no more than max_duration_s, {self.longest}"
            )

    @property
    def shortest(self) -> float:
        """Return the least duration in seconds."""
        return self.min_duration_s or 0.0

    @property
    def longest(self) -> float:
        """Return the greatest duration in seconds."""
        return math.inf if self.max_duration_s is None else self.max_duration_s

    def __str__(self) -> str:
        folder = None if self.folder is None else os.path.abspath(self.folder)
        conditions = {"name": self.name, "folder": folder}
        durations = {"duration >=": self.min_duration_s, "duration <=": self.max_duration_s}
        return ", ".join(
            [f"{what} {value}" for what, value in conditions.items() if value is not None]
            + [f"{what} {value:g} s" for what, value in durations.items() if value is not None]
        )

    def fits(self, files: FileTable) -> np.ndarray:
        """Return for each number of a file whether it meets the conditions, [numbers].

        Raises:
            InputError: durations are asked for and not known of any file.
        """
        fitting = files.alive.copy()
        if self.name is not None:
            matches = re.compile(translate(_composed(self.name))).match
            names = (path and _composed(os.path.basename(path)) for path in files.paths)
            fitting &= [name is not None and matches(name) is not None for name in names]
        if self.folder is not None:
            asked = os.path.abspath(self.folder), str(Path(self.folder).resolve())
            folders = tuple(_composed(os.path.join(path, "")) for path in asked)
            paths = (path and _composed(os.path.abspath(path)) for path in files.paths)
            fitting &= [path is not None and path.startswith(folders) for path in paths]
        if self.min_duration_s is not None or self.max_duration_s is not None:
            durations = files.durations_s
            if np.isnan(durations).all():
                raise InputError("durations are not known of the indexed files; run `enclap index` on them once more")
            fitting &= (durations >= self.shortest) & (durations <= self.longest)
        return fitting


def _composed(text: str) -> str:
    """Return text with each accent as a part of its letter, where Unicode has that letter."""
    return normalize("NFC", text)
