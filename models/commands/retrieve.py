"""retrieve: find the audio files that fit a text best, with an exported ensemble.

Example: enclap retrieve runs/demo/bundle "a dog barks" field_recordings/
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..console import refuse_closed_output, say
from ..csv_files import read_queries
from ..ensemble.index_record import refuse_no_directory
from ..ensemble.manifest import INDEX
from ..errors import InputError, QueryError
from ..long_audio import Windowing
from ..normal_form import normal_form
from ..submission import LISTED, SubmissionError, refuse_names, write_retrieval
from .audio_files import Reading, find_audio
from .indexing import add_files
from .loading import load_ensemble, windows_asked
from .matches import print_matches
from .options import Loading, Searching
from .output import reserved

if TYPE_CHECKING:
    from ..ensemble.bundle import Ensemble

QUERIES_AT_A_TIME = 256


def run(bundle: Path, query: str, searching: Searching, exclude: str | None = None) -> None:
    """Print the files that fit a text best, with the times of the best window where windows are searched.

    Args:
        exclude: a text for what is not wanted.

    Raises:
        QueryError: a text is blank, no files are given and none are indexed, or none meets the conditions.
        AudioError: a path does not exist, or no file can be read.
        CheckpointError: the bundle or its index cannot be loaded.
        InputError: an option or standard output cannot be used.
    """
    for name, text in {"the query": query, "--not": exclude}.items():
        if text is not None and not normal_form(text):
            raise QueryError(f"{name} is blank, expected words")
    ensemble = searchable(bundle, searching)
    start = time.perf_counter()
    found = ensemble.retrieve(
        query, searching.top_k, exclude=exclude, where=searching.where, all_windows=searching.all_windows
    )
    say_cost(ensemble, "retrieve", time.perf_counter() - start, 1)
    print_matches(found, searching.top_k, searching.format)


def searchable(bundle: Path, searching: Searching) -> Ensemble:
    """Load a bundle to search in some files, or in those of its index where none are given; errors as of `run`."""
    refuse_closed_output()
    files = find_audio(searching.paths) if searching.paths else []
    windowing = windows_asked(bundle, searching.window_s, searching.hop_s)
    if windowing and not files:
        raise InputError("--window is for files that are named here; of the index, it is an option of `enclap index`")
    nothing = f"{bundle}: no files are indexed; name files here, or add some with `enclap index {bundle}`"
    if not files:
        refuse_no_directory(bundle / INDEX)
    if not files and not (bundle / INDEX).is_dir():
        raise QueryError(nothing)
    ensemble = load_ensemble(bundle, searching.loading, searching.captioners)
    if files:
        _index_only(ensemble, files, windowing)
    elif not len(ensemble.audio_index):
        raise QueryError(nothing)
    return ensemble


def _index_only(ensemble: Ensemble, files: list[Path], windowing: Windowing | None = None) -> None:
    """Replace what is indexed by these files, for this process alone."""
    from ..ensemble.index import AudioIndex

    ensemble.audio_index = AudioIndex()
    for _ in add_files(ensemble, files, Reading(windowing=windowing)):
        pass  # all is kept in memory


def submit(
    bundle: Path,
    captions: Path,
    paths: list[Path],
    output: Path,
    captioners: bool = True,
    loading: Loading | None = None,
) -> None:
    """Rank all files for every caption of a CSV file and write a Task 8 submission.

    Args:
        captioners: as of `run`.

    Raises:
        CorpusError: the captions cannot be used.
        SubmissionError: fewer than 10 files can be read, or names cannot be in a submission.
    """
    queries, files = read_queries(captions), find_audio(paths)
    if len(files) < LISTED:
        raise SubmissionError(f"{len(files)} audio files, expected at least {LISTED} for a submission")
    refuse_names(output, [path.name for path in files])
    with reserved({"--submission": output}, [captions, *files]):
        ensemble = load_ensemble(bundle, loading or Loading(), captioners)
        _index_only(ensemble, files)
        names = _rank(ensemble, queries, output)
    say(f"retrieve: {len(queries)} queries over {len(names)} files in {output}")


def _rank(ensemble: Ensemble, queries: list[str], output: Path) -> list[str]:
    """Write the submission; return the names of the files that were searched."""
    start = time.perf_counter()
    names = [Path(path).name for path in ensemble.audio_index.paths]
    ranking: list[list[str]] = []
    for at in range(0, len(queries), QUERIES_AT_A_TIME):
        fused = ensemble.similarity(queries[at : at + QUERIES_AT_A_TIME])
        ranking += np.array(names)[np.argsort(-fused, axis=1, kind="stable")[:, :LISTED]].tolist()
    say_cost(ensemble, "retrieve", time.perf_counter() - start, len(queries))
    write_retrieval(output, queries, ranking, names)
    return names


def say_cost(ensemble: Ensemble, job: str, seconds: float, queries: int) -> None:
    """Say what retrieving cost where captioners helped, or why they did not though they were asked."""
    if ensemble.helped:
        each = f"{seconds / queries:.2f} s a query"
        say(f"{job}: {each} with captioners, loading them included; --no-captioners does without")
    warn_of_unhelped(ensemble, job)


def warn_of_unhelped(ensemble: Ensemble, job: str) -> None:
    """Say so where captioners are asked, and the index was made without what they need to help."""
    if ensemble.ask_captioners and not ensemble.helped:
        remedy = f"remove {ensemble.directory / INDEX}, and index the files again"
        say(f"{job}: the index keeps nothing for captioners, so retrievers rank alone; {remedy}", style="yellow")
