"""similar: find the audio files that sound most like a recording, with an exported ensemble.

Example: enclap similar runs/demo/bundle door.wav field_recordings/
"""

from __future__ import annotations

from pathlib import Path

from .retrieve import print_ranking, searchable


def run(bundle: Path, recording: Path, paths: list[Path], top_k: int) -> None:
    """Print rank, similarity and path of the best of the files, or of those in the bundle's index where none are given.

    Raises:
        QueryError: no files are given and none are indexed.
        AudioError: a path does not exist, the recording cannot be read, or no file can be.
        CheckpointError: the bundle or its index cannot be loaded.
    """
    print_ranking(searchable(bundle, paths, captioners=False).similar(recording, top_k))
