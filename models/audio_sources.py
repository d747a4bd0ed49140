"""Take audio from wherever a program has it: a path, the bytes of a file, an open file, or samples and their rate."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from .arguments import texts
from .audio import AudioError, Block, audio_blocks, load_audio, read_duration
from .errors import InputError

EXPECTED = "a path, bytes, a file opened in binary mode, or (samples, sample rate)"
_SINGLE = (str, bytes, bytearray, Mapping)  # no lists, though they can be iterated over


@dataclass(frozen=True)
class Recording:
    """A file of audio, on the disk or in memory, that may be read several times."""

    name: str  # in errors, and in an index
    content: Path | bytes

    @classmethod
    def of(cls, source: AudioSource, name: str) -> Recording:
        """Take a source as a file; samples become one. A path is its own name, and a recording is itself.

        Raises:
            AudioError: if it is none of these, or the samples are not of a shape, type or rate that sound has.
        """
        if isinstance(source, Recording):
            return source
        if isinstance(source, str | os.PathLike):
            return cls(str(source), Path(source))
        if isinstance(source, bytes):
            return cls(name, source)
        if isinstance(source, tuple) and len(source) == 2:
            return cls(name, as_wav(*source, name))
        read = getattr(source, "read", None)
        content = read() if callable(read) else None
        if not isinstance(content, bytes):
            raise AudioError(f"{name}: found {type(source).__name__}, expected {EXPECTED}")
        return cls(name, content)

    def samples(self, rate: int, max_duration_s: float) -> npt.NDArray[np.float32]:
        """Decode it, as `load_audio` does."""
        return load_audio(self._source(), rate, max_duration_s, name=self.name)

    def duration_s(self) -> float:
        """Return its length, as `read_duration` does."""
        return read_duration(self._source(), self.name)

    def blocks(self) -> Iterator[Block]:
        """Decode it block by block, as `audio_blocks` does."""
        return audio_blocks(self._source(), self.name)

    def _source(self) -> Path | BinaryIO:
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content


# Samples are [time] or [channels, time], floats of full scale 1 or int16, with their rate in Hz.
AudioSource = str | os.PathLike[str] | bytes | BinaryIO | tuple[npt.ArrayLike, int] | Recording


def recordings(sources: Iterable[AudioSource]) -> list[Recording]:
    """Return what `Recording.of` makes of each; what has no path is called by its place, from 1 on.

    Raises:
        AudioError: as of `Recording.of`, or there is one source, not a list of them.
    """
    samples = isinstance(sources, tuple) and len(sources) == 2 and isinstance(sources[1], int)
    if samples or not isinstance(sources, Iterable) or isinstance(sources, _SINGLE) or hasattr(sources, "read"):
        found = type(sources).__name__
        raise AudioError(f"sources: found one {found}, expected a list, each {EXPECTED}; put it in brackets")
    listed = list(sources)
    return [Recording.of(one, f"audio {place} of {len(listed)}") for place, one in enumerate(listed, 1)]


def index_names(files: Sequence[Recording], names: Iterable[str] | None) -> list[str]:
    """Return the names that audio is indexed under: those given, or its paths.

    Raises:
        InputError: naming the argument: there are no names and not all audio has a path, there are not as many, or one
            is no text or occurs twice.
    """
    if names is None:
        paths = [one.name for one in files if isinstance(one.content, Path)]
        if len(paths) < len(files):
            raise InputError(f"names: found {len(files) - len(paths)} of {len(files)} without a path; give all a name")
        return paths
    listed = texts("names", names)
    if len(listed) != len(files):
        raise InputError(f"names: found {len(listed)}, expected one for each of {len(files)}")
    if not all(listed):
        raise InputError(f"names: found an empty one in place {listed.index('') + 1} of {len(listed)}, expected a text")
    if twice := [name for name, times in Counter(listed).items() if times > 1]:
        raise InputError(f"names: found {twice[0]!r} more than once, expected another name for each")
    return listed


def as_wav(samples: Any, rate: Any, name: str) -> bytes:
    """Return samples as a WAV file, whose content is then checked as that of others is."""
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors that are not in memory
        raise AudioError(f"{name}: samples cannot be read as an array ({error})") from error
    if array.dtype == np.int16:
        array = array / np.float32(32_768)
    if not np.issubdtype(array.dtype, np.floating):
        raise AudioError(f"{name}: found samples of {array.dtype}, expected floats of full scale 1, or int16")
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[0] > array.shape[1]):
        raise AudioError(f"{name}: found samples of shape {array.shape}, expected [time] or [channels, time]")
    if not array.size:
        raise AudioError(f"{name}: holds no samples")
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or not 0 < rate < 2**31:
        raise AudioError(f"{name}: found the sample rate {rate!r}, expected a whole number of Hz above 0, of 31 bits")
    written = io.BytesIO()
    soundfile.write(written, array.T.astype(np.float32), int(rate), format="WAV", subtype="FLOAT")
    return written.getvalue()
