"""Read files, or their windows, into the index of an ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..audio_sources import Recording
from .audio_files import Heard, Reading, read_sounds

if TYPE_CHECKING:
    from ..ensemble.bundle import Ensemble


def add_files(ensemble: Ensemble, paths: list[Path], reading: Reading) -> Iterator[list[Path]]:
    """Index files in place of what is indexed under their paths; yield those that are done, some at a time.

    Of a file whose end cannot be read, the windows before it are indexed.

    Raises:
        AudioError: no file can be read.
    """
    durations_s = dict[Path, float]()  # of the files whose windows are being read
    for heard in read_sounds(ensemble, paths, reading):
        if reading.windowing is None:
            ensemble.index_clips([one.sound.path for one in heard], [one.clip for one in heard])
            yield [one.sound.path for one in heard]
            continue
        for path in {one.sound.path for one in heard} - {*durations_s}:
            ensemble.audio_index.remove([str(path)])
            durations_s[path] = Recording.of(path, "").duration_s()
        _add_windows(ensemble, heard, durations_s)
        last = heard[-1].sound.path  # there may be more of it
        done = [path for path in durations_s if path != last]
        durations_s = {last: durations_s[last]}
        yield done
    yield [*durations_s]


def _add_windows(ensemble: Ensemble, heard: list[Heard], durations_s: dict[Path, float]) -> None:
    paths = [one.sound.path for one in heard]
    spans = np.array([(one.sound.start_s, one.sound.end_s) for one in heard])
    ensemble.index_clips(paths, [one.clip for one in heard], spans, [durations_s[path] for path in paths])
