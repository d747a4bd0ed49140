"""retrieve: the audio files that fit a text best, with an exported ensemble.

Example: enclap retrieve runs/demo/bundle "a dog barks" field_recordings/
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from corpora.csv_files import read_queries
from models.ensemble.bundle import Ensemble
from models.ensemble.index import AudioIndex
from models.files import stamp
from models.submission import LISTED, SubmissionError, write_retrieval
from ray_jobs.inference.audio_files import find_audio, read_in_batches
from ray_jobs.run.console import console, say
from ray_jobs.run.entry import run_command

QUERIES_AT_ONCE = 256
SAVE_S = 120.0  # between two times that a growing index is written


def run(bundle: Path, query: str, paths: list[Path], top_k: int) -> None:
    """Print rank, similarity and path of the best of the files, or of what `enclap index` kept where none are given."""
    files = find_audio(paths) if paths else []
    ensemble = Ensemble.load(bundle)
    if files:
        _index(ensemble, files)
    for rank, (path, similarity) in enumerate(ensemble.retrieve(query, top_k), 1):
        console.print(f"{rank:3d}  {similarity:8.3f}  {path}", markup=False)


def index(bundle: Path, paths: list[Path]) -> None:
    """Add files to the bundle's index; those that are there, and have not changed since, are not read again."""
    ensemble = Ensemble.load(bundle)
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


def _index(ensemble: Ensemble, files: list[Path]) -> None:
    """Search in these files alone."""
    ensemble.audio_index = AudioIndex()
    for readable, clips in read_in_batches(ensemble, files):
        ensemble.index_clips(readable, clips)


def submit(bundle: Path, captions: Path, paths: list[Path], output: Path) -> None:
    """Rank all files for every caption of a CSV file and write a Task 8 submission.

    Raises:
        CorpusError: if the captions cannot be used.
        SubmissionError: if fewer than 10 files can be read, or two have one name.
    """
    queries, files = read_queries(captions), find_audio(paths)
    if len(files) < LISTED:
        raise SubmissionError(f"{len(files)} audio files, expected at least {LISTED} for a submission")
    ensemble = Ensemble.load(bundle)
    _index(ensemble, files)
    names = [Path(path).name for path in ensemble.audio_index.paths]
    ranking: list[list[str]] = []
    for at in range(0, len(queries), QUERIES_AT_ONCE):
        fused = ensemble.similarity(queries[at : at + QUERIES_AT_ONCE])
        ranking += np.array(names)[np.argsort(-fused, axis=1, kind="stable")[:, :LISTED]].tolist()
    write_retrieval(output, queries, ranking, names)
    say(f"retrieve: {len(queries)} queries over {len(names)} files in {output}")


if __name__ == "__main__":
    run_command("retrieve")
