"""similar: find the audio files that sound most like a recording, with an exported ensemble.

Example: enclap similar runs/demo/bundle door.wav field_recordings/
"""

from __future__ import annotations

from pathlib import Path

from .audio_files import find_audio
from .matches import print_matches
from .options import Searching
from .retrieve import searchable


def run(bundle: Path, recording: Path, searching: Searching) -> None:
    """Print the files that sound most like a recording, with the times of the best window where windows are searched.

    Raises:
        QueryError: no files are given and none are indexed, or none meets the conditions.
        AudioError: a path does not exist, the recording cannot be read, or no file can be.
        CheckpointError: the bundle or its index cannot be loaded.
        InputError: an option cannot be used.
    """
    find_audio([recording])  # told before a bundle is loaded
    found = searchable(bundle, searching).similar(
        recording, searching.top_k, where=searching.where, all_windows=searching.all_windows
    )
    print_matches(found, searching.top_k, searching.format)
