"""Find and read the audio files that a user names on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.audio import AudioError
from models.ensemble.bundle import Clip, Ensemble
from ray_jobs.run.console import progress_bar, say

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus"}


def find_audio(paths: list[Path]) -> list[Path]:
    """Return the files named, and the audio files in the directories named, at any depth, in the order of their names.

    Raises:
        AudioError: a path does not exist, or there is no audio file at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise AudioError(f"{path}: no such file or directory")
        inside = path.rglob("*") if path.is_dir() else [path]
        found += sorted(file for file in inside if path.is_file() or file.suffix.lower() in SUFFIXES)
    if not found:
        raise AudioError(f"{', '.join(map(str, paths))}: no audio files found; looked for {' '.join(sorted(SUFFIXES))}")
    return list(dict.fromkeys(found))


def read_in_batches(
    ensemble: Ensemble, paths: list[Path], before: int = 0, batch_size: int = 16
) -> Iterator[tuple[list[Path], list[Clip]]]:
    """Read files in batches with a progress bar; those that cannot be read are reported and left out.

    Args:
        before: number of files that an earlier run has read, and that are not among `paths`.

    Raises:
        AudioError: no file can be read.
    """
    good = before
    starts = range(0, len(paths), batch_size)
    with progress_bar(len(paths), "files", "reading and computing", shown=len(starts) > 1) as bar:
        for at in starts:
            readable, clips = [], []
            for path in paths[at : at + batch_size]:
                try:
                    clips += ensemble.read([path])
                    readable.append(path)
                except AudioError as error:
                    say(f"left out: {error}", style="yellow")
            good += len(readable)
            if readable:
                yield readable, clips
            bar.update(len(paths[at : at + batch_size]))
    if not good:
        raise AudioError(f"none of {len(paths)} files could be read; the first is {paths[0]}")
