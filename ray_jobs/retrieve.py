"""retrieve: the audio files that fit a text best, with an exported ensemble.

Example: enclap retrieve runs/demo/bundle "a dog barks" field_recordings/
"""

from __future__ import annotations

from pathlib import Path

from models.ensemble import Ensemble
from ray_jobs.audio_files import find_audio, read_in_batches
from ray_jobs.console import console


def run(bundle: Path, query: str, paths: list[Path], top_k: int) -> None:
    """Index the files and print rank, similarity and path of the best."""
    files = find_audio(paths)
    ensemble = Ensemble.load(bundle)
    for readable, clips in read_in_batches(ensemble, files):
        ensemble.index_clips(readable, clips)
    for rank, (path, similarity) in enumerate(ensemble.retrieve(query, top_k), 1):
        console.print(f"{rank:3d}  {similarity:8.3f}  {path}", markup=False)


if __name__ == "__main__":
    import sys

    from ray_jobs.cli import main

    main(["retrieve", *sys.argv[1:]])
