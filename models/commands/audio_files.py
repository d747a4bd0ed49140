"""Find and read the audio files that a user names on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..audio import AUDIO_SUFFIXES, AudioError
from ..console import count, progress_bar, say
from ..ensemble.bundle import Clip, Ensemble

SHOWN = 5  # files that are named because they are heard in part
TOLERANCE_S = 0.1  # MP3 headers may or may not count the delay of the codec


def find_audio(paths: list[Path]) -> list[Path]:
    """Return the files named, and the audio files in the directories named, at any depth, in the order of their names.

    Hidden files, and those in hidden directories, are left out.

    Raises:
        AudioError: a path does not exist, or there is no audio file at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise AudioError(f"{path}: no such file or directory")
        found += sorted(_audio_in(path)) if path.is_dir() else [path]
    if not found:
        suffixes = " ".join(sorted(AUDIO_SUFFIXES))
        raise AudioError(f"{', '.join(map(str, paths))}: no audio files found; looked for {suffixes}")
    return list(dict.fromkeys(found))


def _audio_in(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        # ._rain.wav, which macOS writes beside rain.wav, has its suffix and no sound.
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() not in AUDIO_SUFFIXES or hidden or file.is_dir():
            continue
        if file.exists():
            yield file
        else:
            say(f"left out: {file}: is a link that leads nowhere", style="yellow")


class PartlyHeard:
    """Says which files some members hear only in part: one by one while they are few, then their number."""

    def __init__(self, limits_s: dict[str, float]) -> None:
        """Take the seconds of a file that each member hears."""
        self._limits_s, self._number = limits_s, 0

    def check(self, path: Path, duration_s: float) -> None:
        """Say how much of a file is heard, if that is not all of it."""
        least = min(self._limits_s.values())
        if duration_s <= least + TOLERANCE_S:
            return
        self._number += 1
        if self._number <= SHOWN:
            names = ", ".join(name for name, limit in self._limits_s.items() if limit == least)
            whom = "" if least == max(self._limits_s.values()) else f" by {names}"
            say(f"heard in part{whom}: {path}: the first {least:.1f} s of {duration_s:.1f} s", style="yellow")

    def sum_up(self) -> None:
        """Say how many files were not named."""
        if self._number > SHOWN:
            say(f"heard in part: {self._number - SHOWN} more files", style="yellow")


def read_in_batches(
    ensemble: Ensemble, paths: list[Path], before: int = 0, batch_size: int = 16, captioning: bool = False
) -> Iterator[tuple[list[Path], list[Clip]]]:
    """Read files in batches with a progress bar; those that cannot be read are reported and left out.

    Files that are longer than what members hear are reported, too.

    Args:
        before: number of files that an earlier run has read, and that are not among `paths`.
        captioning: whether captioners hear the files, and not retrievers alone.

    Raises:
        AudioError: no file can be read.
    """
    good, unread = before, 0
    partly = PartlyHeard(ensemble.limits_s(captioning or ensemble.ask_captioners))
    starts = range(0, len(paths), batch_size)
    with progress_bar(len(paths), "files", "reading and computing", shown=len(starts) > 1) as bar:
        for at in starts:
            readable, clips = [], []
            for path in paths[at : at + batch_size]:
                try:
                    clips += ensemble.read([path])
                    readable.append(path)
                    partly.check(path, clips[-1].duration_s)
                except AudioError as error:
                    unread += 1
                    say(f"left out: {error}", style="yellow")
            good += len(readable)
            if readable:
                yield readable, clips
            bar.update(len(paths[at : at + batch_size]))
    partly.sum_up()
    if unread:
        say(f"left out: {unread} of {count(len(paths), 'file')}, which could not be read", style="yellow")
    if not good:
        raise AudioError(f"none of {len(paths)} files could be read; the first is {paths[0]}")
