"""Reading features in training order against numpy.memmap, and against compressed Parquet.

    python benchmarks/loader.py [--clips 2048] [--growth] [--cold]

A clip is 10 s: codes [862, 9] int16, as dac-44khz has them, and a log_mel [1000, 224] float16. Reading one means
copying both into the same arrays, in one thread, with all files in the page cache.

Ours: shards of 64 clips, written by `write_shard` and read by `read_features`, in the order of an epoch
(`shuffle_in_windows`), and for `any_order` in one fully random order.

Baselines: for `epoch` and `any_order`, the same bytes in one plain file for codes and one for log-mels, read through
`numpy.memmap` with known offsets, in the same order, in turns with ours: there is no faster way to have them in any
order. For `parquet`, the way features were stored until now: zstd in row groups of 8 clips, of which the last 32 stay
decoded, in the same order as ours; 256 clips out of 1,024, as it is slow.

`batches` has no target, since it depends on the machine: pairs per second of a retriever's batches of 256, padded, read
ahead in two threads, over the 350 clips/s that an H200 takes (benchmarks/accelerator.py).

`--growth` adds `memory_growth`: the largest anonymous memory of a process that reads an epoch of 20 GB of features
(ours), and of one that reads twenty epochs of 1 GB (baseline); the former are the same shards, linked twenty times.
Pages of mapped files do not count: the system drops them where memory is needed; they are printed beside it.

`--cold` adds an epoch with nothing in the page cache, from which each side's files are dropped before its turn
(`posix_fadvise`, after `fsync`; no root), and opened anew: `cold_epoch` against `numpy.memmap` as above, and
`cold_disk` against one sequential `read` of our shards, the most that this disk gives. The share of the files that came
from the disk is printed beside it; it is 1 where all was cold. A disk of a virtual machine may have a cache of its own.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from claims import Claims, claim, in_turns, parser, peak_memory, show

from models.encoders.log_mel import pad_log_mels
from ray_jobs.experiment.training_config import Resources, Training
from ray_jobs.features.dataset import Features, read_features
from ray_jobs.features.files import MATRICES, write_shard
from ray_jobs.training.batching import bucketed_batches, shuffle_in_windows
from ray_jobs.training.reading import read_ahead

FRAMES, MELS, STEPS, CODEBOOKS = 1000, 224, 862, 9
CLIPS_PER_SHARD = 64
BATCH, H200_CLIPS_PER_S = 256, 350
PARQUET_CLIPS, PARQUET_READ, PARQUET_ROW_GROUP, PARQUET_GROUPS_KEPT = 1024, 256, 8, 32
SMALL_BATCH = 32  # in memory_growth, so that batches are not all that is measured
ROUNDS = 5
COLD_ROUNDS = 3
CHUNK = 16 << 20  # bytes of a sequential read
COPIES = 20  # of the shards, for memory_growth
WINDOW = Training.model_fields["shuffle_clips"].default
Clip = dict[str, np.ndarray]
Read = Callable[[int, Clip], None]  # copies a clip of this number into arrays


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--clips", type=int, default=2048, help="a multiple of 64")
    arguments.add_argument("--growth", action="store_true", help="also measure memory with 1 GB and 20 GB")
    arguments.add_argument("--cold", action="store_true", help="also read an epoch from the disk")
    arguments.add_argument("--epoch-of", type=Path, help="internal: read an epoch of a directory, print its memory")
    arguments.add_argument("--epochs", type=int, default=1, help="internal: of --epoch-of")
    options = arguments.parse_args()
    if options.epoch_of:
        print(json.dumps(memory_of_epochs(options.epoch_of, options.epochs)))
        return
    if options.clips % CLIPS_PER_SHARD or options.clips < PARQUET_CLIPS:
        arguments.error(f"--clips {options.clips}: not a multiple of {CLIPS_PER_SHARD} of at least {PARQUET_CLIPS}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_all(root, options.clips)
        claims = speed(root, options.clips)
        if options.growth:
            claims |= growth(root)
        if options.cold:
            claims |= cold(root, options.clips)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end")
    show(claims)


def made_up(clips: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the clips of one shard after another, of noise: log-mels compress little anyway."""
    rng = np.random.default_rng(0)
    for at in range(0, clips, CLIPS_PER_SHARD):
        yield [
            {
                **dict.fromkeys(("path", "freesound_id", "youtube_id", "audio_sha256"), ""),
                "clip_id": str(number),
                "duration_s": 10.0,
                "captions": ["a dog barks while rain falls on a roof"] * 5,
                "codes": rng.integers(0, 1024, (STEPS, CODEBOOKS)).astype(np.int16),
                "log_mel": rng.normal(-40, 15, (FRAMES, MELS)).astype(np.float16),
            }
            for number in range(at, at + CLIPS_PER_SHARD)
        ]


def write_all(root: Path, clips: int) -> None:
    """Write the same clips as shards, as two plain files, and the first of them as Parquet."""
    (root / "parquet").mkdir()
    with (root / "codes").open("wb") as codes, (root / "log_mel").open("wb") as log_mels:
        for number, shard in enumerate(made_up(clips)):
            write_shard(root / "shards" / f"{number:05d}.arrow", shard, {"codec": {}}, CODEBOOKS, MELS)
            for clip in shard:
                codes.write(clip["codes"].tobytes())
                log_mels.write(clip["log_mel"].tobytes())
            if (number + 1) * CLIPS_PER_SHARD <= PARQUET_CLIPS:
                pq.write_table(
                    pa.ipc.open_file(root / "shards" / f"{number:05d}.arrow").read_all().select(MATRICES),
                    root / "parquet" / f"{number:05d}.parquet",
                    compression="zstd",
                    row_group_size=PARQUET_ROW_GROUP,
                    use_dictionary=["codes.list.element.list.element"],
                )


# --- the three ways to read ----------------------------------------------------------------------------------------


def of_shards(features: Features) -> Read:
    """Return our way."""

    def read(clip: int, into: Clip) -> None:
        into["codes"][:] = features.codes[clip]
        into["log_mel"][:] = features.log_mels[clip]

    return read


def of_plain_files(root: Path) -> Read:
    """Return the way of numpy.memmap: all rows of all clips in one array."""
    files = {
        "codes": np.memmap(root / "codes", np.int16, "r").reshape(-1, CODEBOOKS),
        "log_mel": np.memmap(root / "log_mel", np.float16, "r").reshape(-1, MELS),
    }
    offsets = {"codes": STEPS, "log_mel": FRAMES}

    def read(clip: int, into: Clip) -> None:
        for column, values in files.items():
            into[column][:] = values[clip * offsets[column] : (clip + 1) * offsets[column]]

    return read


def of_parquet(root: Path) -> Read:
    """Return the way of compressed row groups, each of which is decoded as a whole."""

    @lru_cache(PARQUET_GROUPS_KEPT)
    def group(column: str, number: int) -> list[np.ndarray]:
        shard, at = divmod(number, CLIPS_PER_SHARD // PARQUET_ROW_GROUP)
        with pq.ParquetFile(root / "parquet" / f"{shard:05d}.parquet") as file:
            (array,) = file.read_row_group(at, columns=[column])[column].chunks
        flat = array.flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, array.type.value_type.list_size)
        return np.split(flat, PARQUET_ROW_GROUP)

    def read(clip: int, into: Clip) -> None:
        for column in MATRICES:
            into[column][:] = group(column, clip // PARQUET_ROW_GROUP)[clip % PARQUET_ROW_GROUP]

    return read


def speed(root: Path, clips: int) -> Claims:
    """Return the claims of clips per second."""
    features = read_features([root / "shards"])
    ours, plain, parquet = of_shards(features), of_plain_files(root), of_parquet(root)
    into = {"codes": np.empty((STEPS, CODEBOOKS), np.int16), "log_mel": np.empty((FRAMES, MELS), np.float16)}
    check_equal([ours, plain, parquet])

    def epoch(read: Read, order: np.ndarray) -> Callable[[], None]:
        def run() -> None:
            for clip in order.tolist():
                read(clip, into)

        return run

    rng = np.random.default_rng(0)
    in_windows, anyhow = shuffle_in_windows(np.asarray(features.shards), WINDOW, rng), rng.permutation(clips)
    few = in_windows[in_windows < PARQUET_CLIPS][:PARQUET_READ]
    seconds = in_turns([epoch(read, order) for order in (in_windows, anyhow) for read in (ours, plain)], ROUNDS)
    window, window_plain, any_order, any_plain = (clips / one for one in seconds)
    of_few, few_parquet = (len(few) / one for one in in_turns([epoch(ours, few), epoch(parquet, few)], 1))
    (batched,) = in_turns([lambda: read_batches(features, in_windows)], ROUNDS)
    return {
        "epoch": claim(window, window_plain, 0.8, "clips/s"),
        "any_order": claim(any_order, any_plain, 0.8, "clips/s"),
        "parquet": claim(of_few, few_parquet, 50, "clips/s"),
        "batches": claim(clips // BATCH * BATCH / batched, H200_CLIPS_PER_S, None, "clips/s"),
    }


def check_equal(ways: list[Read]) -> None:
    """Check that all ways read the same."""
    for clip in range(0, PARQUET_CLIPS, 37):
        found = []
        for read in ways:
            into = {"codes": np.zeros((STEPS, CODEBOOKS), np.int16), "log_mel": np.zeros((FRAMES, MELS), np.float16)}
            read(clip, into)
            found.append(into)
        for other in found[1:]:
            assert all(np.array_equal(found[0][column], other[column]) for column in MATRICES)


def read_batches(features: Features, order: np.ndarray, size: int = BATCH) -> None:
    """Read an epoch as a retriever's training does."""
    lengths = np.asarray(features.durations_s)[order]
    plans = bucketed_batches(lengths, size, np.random.default_rng(0))
    resources = Resources()

    def read(rows: np.ndarray) -> Any:
        return pad_log_mels([features.log_mels[clip] for clip in order[rows].tolist()])

    for _ in read_ahead(plans, read, resources.reader_threads, resources.read_ahead):
        pass


# --- from the disk -------------------------------------------------------------------------------------------------


def cold(root: Path, clips: int) -> Claims:
    """Return the claims of clips per second that are not in the page cache, the sides in turns."""
    shards, plain = sorted((root / "shards").iterdir()), [root / "codes", root / "log_mel"]
    order = shuffle_in_windows(np.arange(clips) // CLIPS_PER_SHARD, WINDOW, np.random.default_rng(0)).tolist()
    into = {"codes": np.empty((STEPS, CODEBOOKS), np.int16), "log_mel": np.empty((FRAMES, MELS), np.float16)}

    def epoch(opened: Callable[[], Read]) -> Callable[[], None]:
        def run() -> None:
            read = opened()
            for clip in order:
                read(clip, into)

        return run

    sides = {
        "ours": (shards, epoch(lambda: of_shards(read_features([root / "shards"])))),
        "memmap": (plain, epoch(lambda: of_plain_files(root))),
        "disk": (shards, lambda: read_in_order(shards)),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(COLD_ROUNDS):
        for name, (files, run) in sides.items():
            drop_from_cache(files)
            before, start = bytes_from_disk(), time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
            share = (bytes_from_disk() - before) / sum(file.stat().st_size for file in files)
            print(f"cold: {name} {clips / taken[name][-1]:.0f} clips/s, {share:.2f} of the bytes from the disk")
    ours, memmap, disk = (clips / statistics.median(seconds) for seconds in taken.values())
    return {
        "cold_epoch": claim(ours, memmap, 0.8, "clips/s"),
        "cold_disk": claim(ours, disk, None, "clips/s"),
    }


def read_in_order(files: list[Path]) -> None:
    """Read files once, from beginning to end."""
    into = bytearray(CHUNK)
    for file in files:
        with file.open("rb", buffering=0) as source:
            while source.readinto(into):
                pass


def drop_from_cache(files: list[Path]) -> None:
    """Drop the pages of files from the system's cache; those that a process has mapped would stay."""
    gc.collect()  # unmaps what the last reader of them had
    for file in files:
        with file.open("rb") as source:
            os.fsync(source.fileno())
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_from_disk() -> int:
    """Return the bytes that this process has had read from disks, mapped files included; Linux."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


# --- memory --------------------------------------------------------------------------------------------------------


def growth(root: Path) -> Claims:
    """Return the claim of memory; each epoch is read in a process of its own."""
    shards = sorted((root / "shards").iterdir())
    gigabyte = shards[: max(1, round(1e9 / shards[0].stat().st_size))]
    found = []
    for copies in (1, COPIES):
        folder = root / f"copies-{copies}"
        folder.mkdir()
        for number, shard in enumerate(gigabyte * copies):
            (folder / f"{number:05d}.arrow").hardlink_to(shard)
        command = [sys.executable, __file__, "--epoch-of", str(folder), "--epochs", str(COPIES // copies)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(
            "memory: {features:.1f} GB of features, {anonymous:.0f} MiB anonymous, {mapped:.0f} MiB mapped".format(
                **found[-1]
            )
        )
    few, many = found
    return {"memory_growth": claim(many["anonymous"], few["anonymous"], 1 / 1.2, "MiB", less=True)}


def memory_of_epochs(folder: Path, epochs: int) -> dict[str, float]:
    """Read epochs in batches; return GB of features, and MiB of memory at its highest."""
    with peak_memory() as peak:
        features = read_features([folder])
        for number in range(epochs):
            order = shuffle_in_windows(np.asarray(features.shards), WINDOW, np.random.default_rng(number))
            read_batches(features, order, SMALL_BATCH)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"features": size / 1e9, "anonymous": peak["RssAnon"] / 1024, "mapped": peak["RssFile"] / 1024}


if __name__ == "__main__":
    main()
