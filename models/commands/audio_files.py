"""Find and read the audio files that a user names on the command line."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from ..arguments import batched
from ..audio import AUDIO_SUFFIXES, AudioError
from ..audio_sources import Recording
from ..console import count, progress_bar, say
from ..long_audio import Windowing, cut

if TYPE_CHECKING:  # what is told of paths is told before torch is loaded
    from ..ensemble.bundle import Ensemble
    from ..ensemble.clip import Clip

SHOWN = 5  # files that are named because they are heard in part
TOLERANCE_S = 0.1  # MP3 headers may or may not count the delay of the codec


def find_audio(paths: list[Path], may_be_gone: bool = False) -> list[Path]:
    """Return the files named, and the audio files in the directories named, at any depth, in the order of their names.

    Links to directories are followed, so that each directory is read once and none in circles. Hidden files, and those
    in hidden directories, are left out; so is what cannot be opened, which is named and counted.

    Args:
        may_be_gone: whether a path need not exist, and there need be no audio file.

    Raises:
        AudioError: a path does not exist or may not be reached, or there is no audio file at all.
    """
    found: list[Path] = []
    lost: list[str] = []
    for path in paths:
        try:
            there = path.exists()
        except PermissionError as error:
            raise AudioError(f"{path}: may not be reached ({error.strerror})") from error
        if not there:
            if may_be_gone:
                continue
            raise AudioError(f"{path}: no such file or directory")
        found += sorted(_audio_in(path, lost)) if path.is_dir() else [path]
    _say_lost(lost, len(found))
    if not found and not may_be_gone:
        suffixes = " ".join(sorted(AUDIO_SUFFIXES))
        besides = f" beside {lost[0]}" if lost else ""
        raise AudioError(f"{', '.join(map(str, paths))}: no audio files found{besides}; looked for {suffixes}")
    return list(dict.fromkeys(found))


def _say_lost(lost: list[str], found: int) -> None:
    for reason in lost:
        say(f"left out: {reason}", style="yellow")
    if lost:
        say(f"left out: {len(lost)} of {count(found + len(lost), 'path')}, which cannot be opened", style="yellow")


def _audio_in(folder: Path, lost: list[str]) -> Iterator[Path]:
    """Yield the audio files in a folder and in those that links in it lead to; add what cannot be opened to `lost`."""

    def note(error: OSError) -> None:
        lost.append(f"{error.filename}: may not be read ({error.strerror})")

    waiting, seen = [folder], set[Path]()
    while waiting:  # what links lead to comes last: a folder that is also in the tree itself is read there
        for parent, inner, names in os.walk(waiting.pop(0), onerror=note):
            here, real = Path(parent), Path(parent).resolve()
            inner[:] = [name for name in inner if not name.startswith(".")] if real not in seen else []
            if real in seen:
                continue
            seen.add(real)
            links = [here / name for name in inner if os.path.islink(here / name)]
            waiting += [link for link in links if not real.is_relative_to(link.resolve())]
            for file in (here / name for name in names if is_audio(PurePath(name))):
                if reason := _fault(file):
                    lost.append(f"{file}: {reason}")
                else:
                    yield file


def _fault(file: Path) -> str:
    """Return why a file that a folder lists cannot be opened; "" where it can, as far as the folder shows."""
    try:
        kind = file.stat().st_mode
    except OSError as error:
        return "is a link that leads nowhere" if os.path.islink(file) else f"may not be read ({error.strerror})"
    return "" if stat.S_ISREG(kind) else "is a pipe, a socket or a device"


def is_audio(inner: PurePath) -> bool:
    """Return whether a path in a folder is called as audio is, and neither it nor a folder on the way is hidden."""
    # ._rain.wav, which macOS writes beside rain.wav, has its suffix and no sound.
    return inner.suffix.lower() in AUDIO_SUFFIXES and not any(part.startswith(".") for part in inner.parts)


class PartlyHeard:
    """Says which files some members hear only in part: one by one while they are few, then their number."""

    def __init__(self, limits_s: dict[str, float]) -> None:
        """Take the seconds of a file that each member hears."""
        self._limits_s, self._number = limits_s, 0

    def check(self, path: Path | str, duration_s: float) -> None:
        """Say how much of a file, or of each window, is heard, if that is not all of it."""
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
            say(f"heard in part: {count(self._number - SHOWN, 'more file')}", style="yellow")


@dataclass(frozen=True)
class Sound:
    """A file to read, or a window of one."""

    path: Path
    recording: Recording
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class Heard:
    """A file, or a window of one, and what was read of it."""

    sound: Sound
    clip: Clip


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        windowing: read each window of a file; whole files, as far as they are heard, when left out.
        captioning: whether captioners hear the files, and not retrievers alone.
        before: number of files that an earlier run has read, and that are not among those to read.
        done: returns whether a sound need not be read any more.
    """

    batch_size: int = 16
    windowing: Windowing | None = None
    captioning: bool = False
    before: int = 0
    done: Callable[[Sound], bool] = lambda _: False


def read_in_batches(
    ensemble: Ensemble, paths: list[Path], before: int = 0, batch_size: int = 16, captioning: bool = False
) -> Iterator[tuple[list[Path], list[Clip]]]:
    """Read files in batches as `read_sounds` does, and yield those that can be read with what was read of them."""
    for heard in read_sounds(ensemble, paths, Reading(batch_size, None, captioning, before)):
        yield [one.sound.path for one in heard], [one.clip for one in heard]


def read_sounds(ensemble: Ensemble, paths: list[Path], reading: Reading) -> Iterator[list[Heard]]:
    """Read files, or their windows, in batches with a progress bar; what cannot be read is reported and left out.

    Files that are longer than what members hear are reported, too.

    Raises:
        AudioError: no file can be read.
    """
    reader = _Reader(ensemble, reading)
    total = _number_of_sounds(paths, reading.windowing)
    unit = "windows" if reading.windowing else "files"
    with progress_bar(total, unit, "reading and computing", shown=total > reading.batch_size) as bar:
        for batch in batched(reader.sounds(paths, bar.update), reading.batch_size):
            heard = reader.read(batch)
            if heard:
                yield heard
            bar.update(len(batch))
    reader.sum_up(paths)


class _Reader:
    """Reads sounds, and counts those that can be read and those that cannot."""

    def __init__(self, ensemble: Ensemble, reading: Reading) -> None:
        self.ensemble, self.reading = ensemble, reading
        self.good, self.unread = reading.before, 0
        self.captioning = reading.captioning or ensemble.ask_captioners
        self.partly = PartlyHeard(ensemble.limits_s(self.captioning))
        if reading.windowing:
            self.partly.check("each window", reading.windowing.window_s)

    def sounds(self, paths: list[Path], skip: Callable[[int], object]) -> Iterator[Sound]:
        """Yield what is to be read; tell `skip` of what is done already."""
        for path in paths:
            for sound in self._sounds_of(path):
                if self.reading.done(sound):
                    self.good += 1
                    skip(1)
                else:
                    yield sound

    def _sounds_of(self, path: Path) -> Iterator[Sound]:
        recording, until_s = Recording.of(path, ""), 0.0
        if self.reading.windowing is None:
            yield Sound(path, recording)
            return
        try:
            for window in cut(recording, self.reading.windowing):
                until_s = window.end_s
                yield Sound(path, window.recording, window.start_s, until_s)
        except AudioError as error:
            self._leave_out(error, f" from {until_s:.1f} s on" if until_s else "")

    def read(self, sounds: list[Sound]) -> list[Heard]:
        """Read sounds together, and leave out those that cannot be read."""
        clips = self.ensemble.read_each([sound.recording for sound in sounds], codes=self.captioning)
        heard = []
        for sound, clip in zip(sounds, clips, strict=True):
            if isinstance(clip, AudioError):
                self._leave_out(clip)
                continue
            heard.append(Heard(sound, clip))
            if self.reading.windowing is None:
                self.partly.check(sound.path, clip.duration_s)
        self.good += len(heard)
        return heard

    def _leave_out(self, error: AudioError, where: str = "") -> None:
        self.unread += 1
        say(f"left out{where}: {error}", style="yellow")

    def sum_up(self, paths: list[Path]) -> None:
        """Say how many files were not named, and how many could not be read.

        Raises:
            AudioError: none could.
        """
        self.partly.sum_up()
        if self.unread:
            say(f"left out: {self.unread} of {count(len(paths), 'file')}, which could not be read", style="yellow")
        if not self.good:
            raise AudioError(f"none of {len(paths)} files could be read; the first is {paths[0]}")


def _number_of_sounds(paths: list[Path], windowing: Windowing | None) -> int:
    """Return about how many sounds there are; a file whose length cannot be read counts as one."""
    if windowing is None:
        return len(paths)
    number = 0
    for path in paths:
        try:
            number += windowing.number(Recording.of(path, "").duration_s())
        except AudioError:
            number += 1
    return number
