"""Find the last whole checkpoint of a training where Ray Train's record of its checkpoints was cut.

Ray Train keeps that record in one file, which it overwrites in place: a full disk, or the death of its controller,
leaves it empty, and Ray Train then refuses to go on.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import ray.train
from pyarrow import fs

from models.files import write_json
from ray_jobs.run import storage

RECORD = "checkpoint_manager_snapshot.json"
WHOLE = "whole.json"  # of a checkpoint: the bytes of each of its other files


def note_files(checkpoint: Path) -> None:
    """Write which files a checkpoint has, before it is copied to where it is kept."""
    (checkpoint / WHOLE).unlink(missing_ok=True)
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    write_json(checkpoint / WHOLE, {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files})


def find_unrecorded(folder: Path) -> ray.train.Checkpoint | None:
    """Return the last whole checkpoint in the folder of a training, and remove a record that cannot be read.

    Returns:
        None where the record is whole, or there is no whole checkpoint.
    """
    try:
        json.loads(storage.read_bytes(folder / RECORD))
        return None
    except FileNotFoundError:
        pass
    except ValueError:
        storage.remove(folder / RECORD)
    for checkpoint in reversed(storage.folders(folder, "epoch_*_step_*")):
        at = storage.for_ray(checkpoint)
        path, filesystem = at["storage_path"], at.get("storage_filesystem") or fs.LocalFileSystem()
        if _is_whole(path, filesystem):
            return ray.train.Checkpoint(path, filesystem)
    return None


def _is_whole(path: str, filesystem: fs.FileSystem) -> bool:
    found = {
        PurePosixPath(file.path).relative_to(path).as_posix(): file.size
        for file in filesystem.get_file_info(fs.FileSelector(path, recursive=True))
        if file.is_file
    }
    if WHOLE not in found:
        return False
    del found[WHOLE]
    with filesystem.open_input_stream(f"{path}/{WHOLE}") as file:
        try:
            return bool(found) and json.loads(file.read()) == found
        except ValueError:
            return False
