"""The ensemble of a service and its index, and the sounds that clients send."""

from __future__ import annotations

import io
import os
import threading
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from ..audio import AudioError, audio_blocks
from ..audio_sources import Recording
from ..ensemble import Ensemble, Where
from ..errors import InputError
from ..files import stamp
from ..text import printable
from .settings import ServiceSettings

MAX_NUMBERS = 2**28  # samples of all channels that a sound may hold: 1 GiB
KEPT_KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"  # read at the first computation, 1,024 by default


class EmptyIndexError(InputError):
    """There is nothing to search in."""


class UnknownFileError(InputError):
    """No indexed file has an id."""


@dataclass(frozen=True)
class ListedFile:
    """A file of the index, and whether clients may listen to it."""

    id: str
    name: str
    audio: bool


@dataclass(frozen=True)
class FoundFile(ListedFile):
    """A file that a search found, or a stretch of it, in seconds, where the index is one of windows."""

    similarity: float
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class Sound:
    """The bytes of an audio file, and what errors call it."""

    content: bytes = field(repr=False)
    name: str = "the sound"
    duration_s: float = 0.0  # as decoded by `checked`

    @property
    def recording(self) -> Recording:
        """Return it as the library reads it."""
        return Recording(self.name, self.content)

    def checked(self, max_duration_s: float) -> Sound:
        """Return it with its duration, decoded no further than to the limit: what a header says of it is not trusted.

        Raises:
            AudioError: it cannot be decoded, or is longer.
        """
        seconds, numbers = 0.0, 0
        for block in audio_blocks(io.BytesIO(self.content), self.name, max_duration_s + 1.0):
            seconds += len(block.samples) / block.rate
            numbers += block.samples.size
            if seconds > max_duration_s:
                raise AudioError(f"{self.name}: lasts more than {max_duration_s:g} s, the limit here; cut it")
            if numbers > MAX_NUMBERS:
                raise AudioError(f"{self.name}: holds more samples than are taken here; mix it down, or cut it")
        return replace(self, duration_s=seconds)


class Engine:
    """An ensemble, whose index one thread at a time reads or changes.

    Attributes:
        indexed: held while the index is used.
    """

    def __init__(self, ensemble: Ensemble, settings: ServiceSettings) -> None:
        self.ensemble, self._share_audio = ensemble, settings.share_audio
        self.batch_size, self.max_windows = settings.batch_size, settings.max_windows
        self.indexed = threading.RLock()
        self._paths: dict[str, str] | None = None  # by id, until the index changes

    def path(self, file_id: str) -> str:
        """Return the indexed path with an id.

        Raises:
            UnknownFileError: if there is none.
        """
        if self._paths is None:
            self._paths = {_id(file.path): file.path for file in self.ensemble.audio_index.files.present()}
        if file_id not in self._paths:
            raise UnknownFileError(f"no indexed file has the id {file_id}; GET /v1/index lists them")
        return self._paths[file_id]

    def shown(self, path: str) -> ListedFile:
        """Return what clients see of an indexed path."""
        return ListedFile(_id(path), printable(path), self._audio(path) is not None)

    def _audio(self, path: str) -> Path | None:
        """Return the file of an indexed path if clients may listen to it.

        Its stamp tells that `enclap index` added it, not a client under a name that happens to be a path, and that it
        is still the file that was indexed.
        """
        if not self._share_audio or (known := self.ensemble.audio_index.files.find(path)) is None:
            return None
        file = Path(path)
        same = known.stamp and file.is_absolute() and file.is_file() and stamp(file) == known.stamp
        return file if same else None

    def audio(self, file_id: str) -> Path:
        """Return the file to play for an id.

        Raises:
            UnknownFileError: if there is none.
        """
        file = self._audio(self.path(file_id))
        if file is None:
            raise UnknownFileError(f"the file {file_id} is not there to be heard")
        return file

    def any_meets(self, where: Where | None) -> bool:
        """Return whether indexed files meet conditions.

        Raises:
            EmptyIndexError: nothing is indexed.
            InputError: durations are asked for and not known of any file.
        """
        files = self.ensemble.audio_index.files
        if not len(files):
            raise EmptyIndexError("nothing is indexed; `enclap index BUNDLE FOLDER` adds files")
        return where is None or bool(where.fits(files).any())

    def changed(self) -> None:
        """Write the index to the bundle after it changed."""
        self._paths = None
        self.ensemble.save_index()


def _id(path: str) -> str:
    return blake2b(path.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def load_members(ensemble: Ensemble) -> None:
    """Load all members and the index now, so that no client waits for them, and bound what oneDNN keeps of their
    computations.

    Raises:
        CheckpointError: one cannot be loaded.
    """
    # A service hears sounds of ever other lengths, for each of which oneDNN keeps its kernels, between which memory
    # becomes fragmented: it grew without end (docs/results.md).
    os.environ.setdefault(KEPT_KERNELS, "64")
    members = (ensemble.codec, ensemble.log_mel, ensemble.retrievers, ensemble.captioners, ensemble.detector)
    for _ in (*members, ensemble.audio_index):
        pass
