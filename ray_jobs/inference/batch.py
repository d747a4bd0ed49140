"""Compute rows of a large collection with Ray Data: actors that hold the ensemble, a part of the files at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import nan
from typing import Any

import pandas as pd
import pyarrow as pa
import ray
import ray.data

from models.arguments import batched
from models.audio import AudioError
from models.audio_sources import Recording
from models.console import count, progress_bar, say
from models.ensemble.bundle import Ensemble
from models.ensemble.checksums import read_sums
from models.ensemble.clip import Clip
from models.fingerprint import fingerprint
from models.long_audio import cut
from ray_jobs.inference.collection import KEY, Collection, Output, Part, plan_parts, recording_of
from ray_jobs.run.lock import only_writer
from ray_jobs.run.session import check_room, gpu_share, number_of_actors, reserved_device

PART = 32  # files: the unit of writing and of what an interruption costs
BATCH = 16  # files whose features are held, and computed together

Rows = Callable[[Ensemble, Sequence[Clip]], pa.Table]


@dataclass(frozen=True)
class Job:
    """What is computed of each file of a collection, or of each window of it."""

    name: str  # the command
    rows: Rows  # of clips, one each
    captioning: bool  # whether captioners hear the files, and not retrievers alone
    seed: int | None = None

    def record(self, collection: Collection) -> dict[str, Any]:
        """Return what makes an output."""
        windowing, bundle = collection.windowing(), fingerprint(read_sums(collection.local_bundle()))
        return {"job": self.name, "bundle": bundle, "windows": windowing and asdict(windowing), "seed": self.seed}


@dataclass(frozen=True)
class _Sound:
    """A file, or a window of it."""

    file: tuple[str, str]  # path and stamp
    recording: Recording
    duration_s: float  # of the whole file
    span: tuple[float, float] = (nan, nan)  # of a window, in seconds


class PartMaker:
    """An actor: reads a part of the files, computes their rows and writes them."""

    def __init__(self, job: Job, collection: Collection) -> None:
        bundle = collection.local_bundle()
        self.ensemble = Ensemble.load(bundle, str(reserved_device()), ask_captioners=job.captioning)
        self.job, self.sources, self.output = job, collection.sources, Output(collection.output)
        self.windowing = collection.windowing()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make `row["part"]` (JSON); return the number of `files`, the `actor`, and when it began and ended."""
        began, part = time.time(), Part(**json.loads(row["part"]))
        reasons: dict[tuple[str, str], str] = {}
        results = [
            table
            for some in batched(self._sounds(part, reasons), BATCH)
            if (table := self._table(some, reasons)) is not None
        ]
        rows = [{"path": path, "stamp": stamp, "reason": reason} for (path, stamp), reason in reasons.items()]
        self.output.write(part, results, rows)
        actor = ray.get_runtime_context().get_actor_id()
        return {"files": len(part.files), "actor": actor, "began": began, "ended": time.time()}

    def _sounds(self, part: Part, reasons: dict[tuple[str, str], str]) -> Iterator[_Sound]:
        """Yield what is to be read; the reason against a file that ends badly comes after its windows."""
        for path, stamp in part.files:
            file, until_s = (path, stamp), 0.0
            try:
                recording = recording_of(path, self.sources)
                duration_s = recording.duration_s()
                if self.windowing is None:
                    yield _Sound(file, recording, duration_s)
                    continue
                for window in cut(recording, self.windowing):
                    until_s = window.end_s
                    yield _Sound(file, window.recording, duration_s, (window.start_s, until_s))
            except (AudioError, OSError) as error:
                reasons[file] = f"from {until_s:.1f} s on: {error}" if until_s else str(error)

    def _table(self, sounds: list[_Sound], reasons: dict[tuple[str, str], str]) -> pa.Table | None:
        """Return the rows of the sounds that can be read, with what tells which they are of."""
        found = self.ensemble.read_each([one.recording for one in sounds], codes=self.job.captioning)
        heard: list[tuple[_Sound, Clip]] = []
        for one, clip in zip(sounds, found, strict=True):
            if isinstance(clip, AudioError):
                reasons[one.file] = str(clip)
            else:
                heard.append((one, clip))
        if not heard:
            return None
        columns: dict[str, Any] = {name: [one.file[at] for one, _ in heard] for at, name in enumerate(KEY)}
        columns["duration_s"] = [one.duration_s for one, _ in heard]
        if self.windowing:
            columns |= {name: [one.span[at] for one, _ in heard] for at, name in enumerate(("start_s", "end_s"))}
        computed = self.job.rows(self.ensemble, [clip for _, clip in heard])
        return pa.table({**columns, **dict(zip(computed.column_names, computed.columns, strict=True))})


def compute(job: Job, collection: Collection, files: pd.DataFrame) -> Output:
    """Compute the rows of all files that have none yet, and write them.

    Args:
        files: those of the collection, from `find_files`.

    Raises:
        AudioError: no file could be read.
        CheckpointError: the bundle cannot be loaded.
        ConfigError: no node has what an actor takes.
        InputError: the output was made with another bundle or by another job, or another process writes it.
    """
    each = {"CPU": collection.actors.cpus, "GPU": gpu_share(collection.actors.gpus)}
    check_room(f"{job.name} (--cpus, --gpus)", each)
    record, where, output = job.record(collection), collection.output, Output(collection.output)
    with only_writer(output.root):
        output.begin(record)
        output.drop_changed(files)
        parts = plan_parts(files, output.done(), PART)
        todo = sum(len(part.files) for part in parts)
        say(f"{job.name}: {count(todo, 'file')} to do, {len(files) - todo} done already")
        with progress_bar(todo, "files", job.name) as bar:
            for made in make_parts(parts, job, collection):
                bar.update(made["files"])
        left_out = output.write_quarantine()
    if left_out:
        say(f"{job.name}: {count(left_out, 'file')} could not be read; {where}/quarantine.csv says why", style="yellow")
    if not output.rows():
        raise AudioError(f"none of {len(files)} files could be read; {where}/quarantine.csv says why")
    return output


def make_parts(parts: list[Part], job: Job, collection: Collection) -> Iterator[dict[str, Any]]:
    """Make parts in actors; yield what `PartMaker` returns of each."""
    if not parts:
        return
    actors = collection.actors
    rows = ray.data.from_items([{"part": part.to_json()} for part in parts], override_num_blocks=len(parts))
    made = rows.map(
        PartMaker,
        fn_constructor_args=(job, collection),
        num_cpus=actors.cpus,
        num_gpus=gpu_share(actors.gpus),
        compute=ray.data.ActorPoolStrategy(size=min(number_of_actors(actors), len(parts))),
    )
    yield from made.iter_rows()
