"""A collection captioned by `caption-collection`, against as many plain processes that share it without Ray.

    python benchmarks/collection.py runs/demo/bundle data/soundscapes-demo/test [--clips 2000] [--workers 2]

Both sides caption the same files, those of the folder over and over under other names, with one thread a worker. Each
plain process takes every n-th file, reads and captions 16 at a time, and writes nothing. Of both sides the time counts
from when all workers have loaded the ensemble to the last worker's last file: plain processes wait for each other, and
of a part that an actor works on in that moment, the share that comes later counts. How long actors take to start is
printed apart. `throughput` is in clips a second; the target is 0.9 of the plain processes.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pandas as pd
from claims import claim, parser, show

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in workers
TARGET = 0.9
Span = tuple[float, float]
worker: dict[str, Any] = {}  # of a plain process: its ensemble, and the barrier at which it waits for the others


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--clips", type=int, default=2000)
    arguments.add_argument("--workers", type=int, default=2)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = copied(options.folder, Path(scratch) / "sounds", options.clips)
        plain = len(files) / by_processes(options.bundle, files, options.workers)
        print(f"plain processes: {plain:.2f} clips/s", flush=True)
        ours = by_ray(options.bundle, Path(scratch), options.workers)
    show({"throughput": claim(ours, plain, TARGET, "clips/s")})


def copied(folder: Path, target: Path, number: int) -> list[Path]:
    """Copy the audio of a folder, each file as often as it takes; return the copies."""
    from models.commands.audio_files import find_audio

    found = find_audio([folder])
    target.mkdir()
    copies = [target / f"{at:06d}-{found[at % len(found)].name}" for at in range(number)]
    for at, copy in enumerate(copies):
        shutil.copyfile(found[at % len(found)], copy)
    return copies


def by_processes(bundle: Path, files: list[Path], workers: int) -> float:
    """Return the seconds from the first file to the last."""
    shares = [files[rank::workers] for rank in range(workers)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_load, initargs=(bundle, context.Barrier(workers))) as pool:
        spans = pool.map(_caption, shares, chunksize=1)
    return max(end for _, end in spans) - min(start for start, _ in spans)


def by_ray(bundle: Path, scratch: Path, workers: int) -> float:
    """Return the clips a second from when all actors are loaded."""
    from ray_jobs.caption_collection import caption_job
    from ray_jobs.experiment.config import ActorResources
    from ray_jobs.inference.batch import PART, make_parts
    from ray_jobs.inference.collection import Collection, find_files, plan_parts
    from ray_jobs.run.session import connect

    start = time.time()
    connect()
    sources, output = [str(scratch / "sounds")], str(scratch / "captions")
    collection = Collection(str(bundle.resolve()), sources, output, ActorResources(workers=workers))
    files = find_files(sources)
    made = pd.DataFrame(make_parts(plan_parts(files, files.iloc[:0], PART), caption_job(None), collection))
    loaded = made.groupby("actor")["began"].min()
    print(f"actors: started after {', '.join(f'{at - start:.1f}' for at in sorted(loaded))} s", flush=True)
    counted = (made["ended"] - made["began"].clip(lower=loaded.max())).clip(lower=0)
    clips = (made["files"] * counted / (made["ended"] - made["began"])).sum()
    return float(clips / (made["ended"].max() - loaded.max()))


def _load(bundle: Path, everyone: Barrier) -> None:
    from models.ensemble.bundle import Ensemble

    worker.update(ensemble=Ensemble.load(bundle, "cpu"), everyone=everyone)


def _caption(files: list[Path]) -> Span:
    worker["everyone"].wait()
    start, ensemble = time.time(), worker["ensemble"]
    for at in range(0, len(files), 16):
        ensemble.caption_clips(ensemble.read(files[at : at + 16]))
    return start, time.time()


if __name__ == "__main__":
    main()
