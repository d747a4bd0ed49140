"""retrieve: find the audio files that fit a text best, with an exported ensemble.

Example: enclap retrieve runs/demo/bundle "a dog barks" field_recordings/
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from ..console import say
from ..csv_files import read_queries
from ..ensemble.bundle import Ensemble, QueryError
from ..ensemble.index import AudioIndex
from ..ensemble.manifest import INDEX
from ..submission import LISTED, SubmissionError, write_retrieval
from .audio_files import find_audio, read_in_batches
from .output import print_data

QUERIES_AT_A_TIME = 256


def run(bundle: Path, query: str, paths: list[Path], top_k: int, captioners: bool = True) -> None:
    """Print rank, similarity and path of the best of the files, or of those in the bundle's index where none are given.

    Args:
        captioners: whether they may help, where the bundle weighs them.

    Raises:
        QueryError: the query is blank, or no files are given and none are indexed.
        AudioError: a path does not exist, or no file can be read.
        CheckpointError: the bundle or its index cannot be loaded.
    """
    if not query.strip():
        raise QueryError("the query is blank, expected words")
    ensemble = searchable(bundle, paths, captioners)
    start = time.perf_counter()
    found = ensemble.retrieve(query, top_k)
    say_cost(ensemble, "retrieve", time.perf_counter() - start, 1)
    print_ranking(found)


def searchable(bundle: Path, paths: list[Path], captioners: bool) -> Ensemble:
    """Load a bundle to search in some files, or in those of its index where none are given; errors as of `run`."""
    files = find_audio(paths) if paths else []
    ensemble = Ensemble.load(bundle, ask_captioners=captioners)
    if files:
        _index_only(ensemble, files)
    elif not len(ensemble.audio_index):
        raise QueryError(f"{bundle}: no files are indexed; name files here, or add some with `enclap index {bundle}`")
    return ensemble


def print_ranking(found: list[tuple[str, float]]) -> None:
    """Print rank, similarity and path of each file."""
    for rank, (path, similarity) in enumerate(found, 1):
        print_data(f"{rank:3d}  {similarity:8.3f}  {path}")


def _index_only(ensemble: Ensemble, files: list[Path]) -> None:
    """Replace what is indexed by these files, for this process alone."""
    ensemble.audio_index = AudioIndex()
    for readable, clips in read_in_batches(ensemble, files):
        ensemble.index_clips(readable, clips)


def submit(bundle: Path, captions: Path, paths: list[Path], output: Path, captioners: bool = True) -> None:
    """Rank all files for every caption of a CSV file and write a Task 8 submission.

    Args:
        captioners: as of `run`.

    Raises:
        CorpusError: the captions cannot be used.
        SubmissionError: fewer than 10 files can be read, or two have one name.
    """
    queries, files = read_queries(captions), find_audio(paths)
    if len(files) < LISTED:
        raise SubmissionError(f"{len(files)} audio files, expected at least {LISTED} for a submission")
    ensemble = Ensemble.load(bundle, ask_captioners=captioners)
    _index_only(ensemble, files)
    start = time.perf_counter()
    names = [Path(path).name for path in ensemble.audio_index.paths]
    ranking: list[list[str]] = []
    for at in range(0, len(queries), QUERIES_AT_A_TIME):
        fused = ensemble.similarity(queries[at : at + QUERIES_AT_A_TIME])
        ranking += np.array(names)[np.argsort(-fused, axis=1, kind="stable")[:, :LISTED]].tolist()
    say_cost(ensemble, "retrieve", time.perf_counter() - start, len(queries))
    write_retrieval(output, queries, ranking, names)
    say(f"retrieve: {len(queries)} queries over {len(names)} files in {output}")


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
