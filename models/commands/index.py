"""index: add audio files to the index that an exported ensemble keeps, for `enclap retrieve` to search.

Example: enclap index runs/demo/bundle field_recordings/
"""

from __future__ import annotations

import time
from pathlib import Path

from filelock import FileLock, Timeout

from ..console import say
from ..ensemble.bundle import Ensemble
from ..ensemble.manifest import read_manifest
from ..errors import InputError
from ..files import stamp
from ..retriever.collapse import collapse_warnings, mean_cosines
from .audio_files import find_audio, read_in_batches
from .retrieve import warn_of_unhelped

LOCK = ".index.lock"  # in the bundle: one process at a time adds files
SAMPLE = 10_000  # clips, about, of which it is told whether they are alike
SAVE_S = 120.0  # at least, from one writing of a growing index to the next


def run(bundle: Path, paths: list[Path], captioners: bool = True) -> None:
    """Add files to the bundle's index; files that are there and unchanged since are not read again.

    The index is written every two minutes as it grows, so that a run that is interrupted goes on from there.

    Args:
        captioners: whether what they need to help is kept, where the bundle weighs them; all files of an index have it,
            or none.

    Raises:
        AudioError: a path does not exist, or no file can be read.
        CheckpointError: the bundle or its index cannot be loaded.
        InputError: another process is adding files, or `captioners` is false, and the index keeps what they need.
    """
    read_manifest(bundle)
    lock = FileLock(bundle / LOCK)
    try:
        with lock.acquire(timeout=0):
            _add(bundle, paths, captioners)
    except Timeout as error:
        raise InputError(f"{bundle}: another `enclap index` is adding files to it; wait for it, or stop it") from error


def _add(bundle: Path, paths: list[Path], captioners: bool) -> None:
    """Add files to the index, which no other process changes meanwhile."""
    ensemble = Ensemble.load(bundle, ask_captioners=captioners)
    if not captioners and ensemble.audio_index.left_unread:
        raise InputError(
            f"{bundle}: its index keeps what captioners need of {len(ensemble.audio_index)} files, which "
            "--no-captioners would drop; leave the option out, or remove the index first"
        )
    warn_of_unhelped(ensemble, "index")
    known = ensemble.audio_index.stamps
    stamps = {file: stamp(file) for file in (path.resolve() for path in find_audio(paths))}
    todo = [file for file in stamps if known.get(str(file)) != stamps[file]]
    say(f"index: {len(todo)} files to add, {len(stamps) - len(todo)} are there already")
    saved = time.monotonic()
    for readable, clips in read_in_batches(ensemble, todo, len(stamps) - len(todo)):
        ensemble.index_clips(readable, clips)
        known.update((str(file), stamps[file]) for file in readable)
        if time.monotonic() - saved > SAVE_S:
            ensemble.save_index()
            saved = time.monotonic()
    say(f"index: {len(ensemble.audio_index)} files in {ensemble.save_index()}")
    warn_of_collapse(ensemble)


def warn_of_collapse(ensemble: Ensemble) -> None:
    """Say which retrievers hardly tell the indexed clips apart, of a sample where there are many.

    The measure is that of training, before the metric: it may stretch a direction that all clips share, which changes
    no ranking.
    """
    for name, mapped in ensemble.audio_index.embeddings.items():
        embeddings = ensemble.retrievers[name].before_metric(mapped[:: 1 + len(mapped) // SAMPLE])
        for warning in collapse_warnings(mean_cosines(audio_cosine=embeddings)):
            say(f"index: {name}: {warning}, unless the recordings are alike", style="yellow")
