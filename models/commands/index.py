"""index: add audio files to the index that an exported ensemble keeps, for `enclap retrieve` to search.

Example: enclap index runs/demo/bundle field_recordings/
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock, Timeout

from ..audio import read_duration
from ..console import count, say
from ..ensemble.index_files import FileTable
from ..ensemble.index_record import refuse_no_directory
from ..ensemble.manifest import INDEX
from ..errors import AudioError, InputError
from ..files import CheckpointError, sha256_of, stamp
from ..long_audio import Windowing
from ..retriever.collapse import collapse_warnings, mean_cosines
from .audio_files import SHOWN, Reading, find_audio
from .changed_files import Changes, compare, refuse_lost_directories
from .indexing import add_files
from .loading import load_ensemble, windows_asked
from .options import Loading
from .retrieve import warn_of_unhelped

if TYPE_CHECKING:
    from ..ensemble.bundle import Ensemble

LOCK = ".index.lock"  # in the bundle: one process at a time adds files
SAMPLE = 10_000  # clips, about, of which it is told whether they are alike
SAVE_S = 120.0  # at least, from one writing of a growing index to the next
SAVE_ROWS = 50_000  # that are in memory at most, about


@dataclass(frozen=True)
class Options:
    """How files are indexed.

    Attributes:
        captioners: whether what they need to help is kept, where the bundle weighs them; all files of an index have it,
            or none.
        window_s: length of the windows that are indexed; without, only the beginning of a long file is heard.
        hop_s: seconds from the beginning of a window to that of the next; `window_s` when left out.
        remove_gone: remove what is gone even where it is all that the index has of a directory.
    """

    captioners: bool = True
    window_s: float | None = None
    hop_s: float | None = None
    remove_gone: bool = False
    batch_size: int = 16
    loading: Loading = field(default_factory=Loading)


def run(bundle: Path, paths: list[Path], options: Options = Options()) -> None:
    """Make the bundle's index hold files as they are on the disk: add new and changed ones, remove those that are gone.

    Files that have not changed are not read again, nor are those that were moved or touched computed again. A file is
    gone if the index has it of a directory among `paths`, and it is no longer there. The index is written every two
    minutes as it grows, so that a run that is interrupted goes on from there.

    Raises:
        AudioError: a path does not exist, or no file can be read.
        CheckpointError: the bundle cannot be loaded; an index that cannot be is begun afresh.
        InputError: another process is adding files; `captioners` is false, and the index keeps what they need; all
            files of a directory are gone; or the index has windows of the files, and none are asked for.
    """
    windowing = windows_asked(bundle, options.window_s, options.hop_s)
    files = [path.resolve() for path in _find(bundle, paths, options.remove_gone)]
    directories = [path.resolve() for path in paths if not path.is_file()]
    with index_lock(bundle):
        ensemble = _load(bundle, options)
        table = ensemble.audio_index.files
        changes = compare(table, files, directories, spell_windows(windowing))
        if not options.remove_gone:
            refuse_lost_directories(table, changes, directories)
        if windowing is None:
            _refuse_windows(table, changes, bundle)
        _apply(ensemble, changes)
        _add(ensemble, changes, Reading(options.batch_size, windowing, before=changes.there))
        finish_index(ensemble)


def _find(bundle: Path, paths: list[Path], remove_gone: bool) -> list[Path]:
    try:
        return find_audio(paths, may_be_gone=remove_gone)
    except AudioError as error:
        if not (bundle / INDEX).is_dir():
            raise
        raise AudioError(f"{error}; to remove what the index has of it and is gone, say --remove-gone") from error


@contextmanager
def index_lock(bundle: Path, remedy: str = "wait for it, or stop it") -> Iterator[None]:
    """Let no other process change the index of a bundle during the block.

    Args:
        remedy: what the user can do if one does, for the message.

    Raises:
        InputError: if one does, the bundle cannot be written, or what is in the place of its index is none.
    """
    refuse_no_directory(bundle / INDEX)
    try:
        held = FileLock(bundle / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"{bundle}: another process is changing its index; {remedy}") from error
    except OSError as error:
        raise InputError(
            f"{bundle}: cannot be written ({error.strerror}), and its index is kept in it; copy the bundle to a place "
            "that is writable"
        ) from error
    with held:
        yield


def _load(bundle: Path, options: Options) -> Ensemble:
    ensemble = load_ensemble(bundle, options.loading, options.captioners)
    begin_afresh_if_unusable(ensemble)
    if not options.captioners and ensemble.audio_index.left_unread:
        raise InputError(
            f"{bundle}: its index keeps what captioners need of {len(ensemble.audio_index.files)} files, which "
            "--no-captioners would drop; leave the option out, or remove the index first"
        )
    warn_of_unhelped(ensemble, "index")
    return ensemble


def begin_afresh_if_unusable(ensemble: Ensemble) -> None:
    """Put an empty index in the place of one that is damaged, of a newer format or of other weights, and say so.

    What is on the disk stays until the new one is saved. Where the lists of a large index alone are damaged, they are
    removed, to be made anew.

    Raises:
        CheckpointError: a retriever cannot be loaded, which is no fault of the index.
    """
    try:
        len(ensemble.audio_index)
    except CheckpointError as error:
        if lists := [*(ensemble.directory / INDEX).glob("lists*")]:
            for file in lists:
                file.unlink()
            begin_afresh_if_unusable(ensemble)
            return
        len(ensemble.retrievers)
        from ..ensemble.index import AudioIndex  # loads torch

        say(f"index: begun afresh, with these files alone, as it cannot be used: {error}", style="yellow")
        ensemble.audio_index = AudioIndex()


def _refuse_windows(table: FileTable, changes: Changes, bundle: Path) -> None:
    """Raise InputError if windows would be replaced by whole files, which nobody asked for."""
    for file in filter(None, (table.find(str(path)) for path in changes.to_read)):
        if file.windows:
            window, _, hop = file.windows.partition("/")
            raise InputError(
                f"{file.path}: is indexed in windows; say --window {window} --hop {hop} to go on so, or remove "
                f"{bundle / INDEX} first"
            )


def spell_windows(windowing: Windowing | None) -> str:
    """Return windows as `IndexedFile.windows` has them."""
    return f"{windowing.window_s:g}/{windowing.hop_s:g}" if windowing else ""


def _apply(ensemble: Ensemble, changes: Changes) -> None:
    """Bring what the index knows of files up to date, where none need be read."""
    index = ensemble.audio_index
    say(f"index: {count(len(changes.to_read), 'file')} to add, {changes.there} there already")
    index.remove([file.path for file in changes.gone])
    for file in changes.gone[:SHOWN]:
        say(f"index: removed, as it is gone: {file.path}")
    if len(changes.gone) > SHOWN:
        say(f"index: removed, as they are gone: {len(changes.gone) - SHOWN} more")
    for path, file in changes.equal.items():
        if file.path != str(path):
            index.files.rename(file, str(path))
        file.stamp = changes.stamps[path]
    for file in index.files.present():
        if np.isnan(file.duration_s):  # of an index of an earlier version
            file.duration_s = _duration(file.path)


def _add(ensemble: Ensemble, changes: Changes, reading: Reading) -> None:
    """Add the files that are to be read, and write the index now and then."""
    saved, rows = time.monotonic(), len(ensemble.audio_index)
    for added in add_files(ensemble, changes.to_read, reading) if changes.to_read else ():
        for path in added:
            file = ensemble.audio_index.files.find(str(path))
            assert file is not None
            file.windows = spell_windows(reading.windowing)
            if content := _unchanged(path, changes.stamps[path]):
                file.stamp, file.sha256 = changes.stamps[path], content
            else:
                say(f"index: changed while it was read; the next run reads it again: {path}")
        if time.monotonic() - saved > SAVE_S or len(ensemble.audio_index) - rows > SAVE_ROWS:
            ensemble.save_index()
            saved, rows = time.monotonic(), len(ensemble.audio_index)


def _unchanged(path: Path, before: str) -> str:
    """Return the checksum of a file; nothing if it has another stamp, for then it may not be of what was read."""
    try:
        content = sha256_of(path)
        return content if stamp(path) == before else ""
    except OSError:
        return ""


def finish_index(ensemble: Ensemble) -> None:
    """Write the index, make what a large one is searched by, and say what it holds."""
    directory, files, rows = ensemble.save_index(), len(ensemble.audio_index.files), len(ensemble.audio_index)
    windows = f", {rows} rows with their windows" if rows != files else ""
    say(f"index: {count(files, 'file')}{windows} in {directory}")
    if lists := ensemble.make_lists():
        say(
            f"index: searched by its nearest {count(lists.probes, 'cluster')}; recall@10 {lists.recall:.4f} against "
            f"exact search, of {lists.queries} queries"
        )
    warn_of_collapse(ensemble)


def _duration(path: str) -> float:
    try:
        return read_duration(path)
    except AudioError:
        return float("nan")


def warn_of_collapse(ensemble: Ensemble) -> None:
    """Say which retrievers hardly tell the indexed clips apart, of a sample where there are many.

    The measure is that of training, before the metric: it may stretch a direction that all clips share, which changes
    no ranking.
    """
    index = ensemble.audio_index
    rows = index.sample(SAMPLE)
    for name in index.retrievers():
        embeddings = ensemble.retrievers[name].before_metric(index.vectors(name, rows))
        for warning in collapse_warnings(mean_cosines(audio_cosine=embeddings)):
            say(f"index: {name}: {warning}, unless the recordings are alike", style="yellow")
