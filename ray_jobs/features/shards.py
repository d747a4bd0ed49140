"""Compute feature shards with Ray Data: assign clips to files, and run the stages that make a file.

A shard is the unit of parallel work, of resuming (a shard exists or not) and of memory (no stage holds more than one).
Without a GPU one pool of actors reads, encodes and writes. With GPUs these are three stages, so that a GPU does nothing
but compute: readers decode on CPUs ahead of the encoders, as far as Ray Data's backpressure lets them, and tasks write.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import ray
import ray.data

from corpora.audio import files_of, load_clip
from models.audio import AudioError
from models.console import count, progress_bar, say
from models.fingerprint import fingerprint
from ray_jobs.experiment.config import ActorResources, FeaturesConfig
from ray_jobs.features.ended_readers import ReadingRecord
from ray_jobs.features.files import EARLIER_SHARDS, SHARDS, inputs_of_whole, write_shard
from ray_jobs.run import storage
from ray_jobs.run.session import gpu_share, number_of_actors, reserved_device

CLIP_COLUMNS = ["clip_id", "path", "captions", "freesound_id", "youtube_id"]
STAT_THREADS = 32  # a network file system answers many requests at the same time
WAITING = 2  # shards that wait in memory at each encoder


@dataclass(frozen=True)
class Shard:
    """A feature file and the clips of a split that it holds."""

    path: str
    inputs: str
    clips: list[dict[str, Any]]  # CLIP_COLUMNS

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def is_written(self) -> bool:
        return inputs_of_whole(Path(self.path)) == self.inputs


def plan_shards(table: pd.DataFrame, features: FeaturesConfig, target: Path) -> list[Shard]:
    """Assign the clips of a split to shards, and remove shards that it has no more."""
    clips: list[dict[str, Any]] = table[CLIP_COLUMNS].to_dict("records")  # type: ignore[assignment]
    with ThreadPoolExecutor(STAT_THREADS) as threads:
        stamps = list(threads.map(_stamp, table["path"]))
    size = features.clips_per_shard
    shards = [
        Shard(
            str(target / f"{at // size:05d}.arrow"),
            fingerprint(features, clips[at : at + size], stamps[at : at + size]),
            clips[at : at + size],
        )
        for at in range(0, len(clips), size)
    ]
    wanted = {shard.path for shard in shards}
    for path in [
        *storage.listing(target, SHARDS),
        *storage.listing(target, EARLIER_SHARDS),
        *target.glob(".*.partial"),
    ]:
        if str(path) not in wanted:
            storage.remove(path)
    return shards


def _stamp(path: str) -> list[int]:
    """Return size and time of change of a clip's files: a shard is made again when one of them changes."""
    try:
        stats = [file.stat() for file in files_of(path)]
    except OSError:
        return []
    return [number for status in stats for number in (status.st_size, status.st_mtime_ns)]


def write_shards(shards: list[Shard], features: FeaturesConfig, codec_rate: int, resources: ActorResources) -> None:
    """Make the missing shards of all corpora and splits, with a progress bar."""
    with ThreadPoolExecutor(STAT_THREADS) as threads:
        todo = [shard for shard, is_there in zip(shards, threads.map(Shard.is_written, shards)) if not is_there]
    clips = sum(len(shard.clips) for shard in todo)
    say(f"prepare: {len(todo)} shards of {clips} clips to make, {len(shards) - len(todo)} done already")
    if not todo:
        return
    seconds, load = 0.0, EncoderLoad()
    with progress_bar(clips, "clips", "prepare") as bar:
        for made in make_shards(todo, features, codec_rate, resources):
            seconds += made["seconds"]
            load.add(made)
            bar.set_postfix_str(f"{seconds / 3600:.2f} h of audio", refresh=False)
            bar.update(made["clips"])
    say(f"prepare: {clips} clips, {seconds / 3600:.2f} hours of audio; {load}")


def make_shards(
    shards: list[Shard], features: FeaturesConfig, codec_rate: int, resources: ActorResources
) -> Iterator[dict[str, Any]]:
    """Write shards; yield of each finished one the number of `clips`, the `seconds` of audio, and `EncoderLoad`'s."""
    rows = ray.data.from_items([{"shard": shard.to_json()} for shard in shards], override_num_blocks=len(shards))
    number, gpus = min(number_of_actors(resources), len(shards)), gpu_share(resources.gpus)
    if not gpus:
        made = rows.map(
            ShardMaker,
            fn_constructor_args=(features,),
            num_cpus=resources.cpus,
            compute=ray.data.ActorPoolStrategy(size=number),
        )
    else:
        readers = max(1, int(ray.cluster_resources()["CPU"] / resources.cpus) - 1)
        read = rows.map(
            ShardReader,
            fn_constructor_args=(features, codec_rate),
            num_cpus=resources.cpus,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=readers),
        )
        encoded = read.map(
            ShardEncoder,
            fn_constructor_args=(features,),
            num_cpus=0,
            num_gpus=gpus,
            # shards that wait at an encoder while it computes another
            compute=ray.data.ActorPoolStrategy(size=number, max_tasks_in_flight_per_actor=1 + WAITING),
        )
        # num_cpus=0: writing takes little, and readers may hold all CPUs.
        made = encoded.map(write_encoded, fn_args=(features,), num_cpus=0, compute=ray.data.TaskPoolStrategy(number))
    return iter(made.iter_rows())


@dataclass
class EncoderLoad:
    """What share of their time the encoders compute: well below 1 they wait for readers or for the disk."""

    computing_s: dict[str, float] = field(default_factory=dict)
    alive_s: dict[str, float] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)

    def add(self, made: dict[str, Any]) -> None:
        """Count a shard, of whose `encoder` on `device` it says `computing_s` and until then `alive_s`."""
        encoder = made["encoder"]
        self.computing_s[encoder] = self.computing_s.get(encoder, 0.0) + made["computing_s"]
        self.alive_s[encoder] = max(self.alive_s.get(encoder, 0.0), made["alive_s"])
        self.devices.add(made["device"])

    @property
    def share(self) -> float:
        """Return the seconds computing of all encoders over their seconds alive."""
        return sum(self.computing_s.values()) / sum(self.alive_s.values())

    def __str__(self) -> str:
        encoding = f"{count(len(self.alive_s), 'encoder')} on {' and '.join(sorted(self.devices))}"
        return f"{encoding} computed {self.share:.0%} of the time"


# --- the stages ----------------------------------------------------------------------------------------------------


class ShardReader:
    """Decodes and resamples; clips that cannot be used are set aside with their reasons."""

    def __init__(self, features: FeaturesConfig, codec_rate: int) -> None:
        self.features = features
        self.codec_rate = codec_rate

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Read `row["shard"]` (JSON); return `usable` and `quarantine` (JSON), and flat waveforms.

        `waveforms` are for the codec, `heard` for the log-mels: the same where both have one sample rate, and then left
        empty.
        """
        shard = Shard(**json.loads(row["shard"]))
        usable: list[dict[str, Any]] = []
        quarantine: list[tuple[str, str, str]] = []
        waveforms: list[np.ndarray] = []
        heard: list[np.ndarray] = []
        record = ReadingRecord(storage.here(Path(shard.path)))
        for clip in shard.clips:
            try:
                record.begin(clip["path"])
                own = self._read(clip["path"])
            except AudioError as error:
                quarantine.append((clip["clip_id"], clip["path"], str(error)))
                continue
            waveforms.append(own[0])
            heard += own[1:]
            usable.append(clip | {"audio_sha256": _audio_sha256(own[0])})
        record.end()
        return {
            "path": shard.path,
            "inputs": shard.inputs,
            "usable": json.dumps(usable),
            "quarantine": json.dumps(quarantine),
            **_join("waveforms", waveforms, np.float32),
            **_join("heard", heard, np.float32),
        }

    def _read(self, path: str) -> list[np.ndarray]:
        """Return the waveform [samples] at the codec's sample rate, and at that of the log-mel if it is another."""
        longest, rates = self.features.max_duration_s, [self.codec_rate]
        if self.features.log_mel.sample_rate != self.codec_rate:
            rates.append(self.features.log_mel.sample_rate)
        # The file is judged once.
        return [load_clip(path, rate, longest, strict=rate == self.codec_rate) for rate in rates]


class ShardEncoder:
    """Computes the codes and log-mels of clips that ShardReader read, on the device that Ray gave it."""

    def __init__(self, features: FeaturesConfig) -> None:
        from models.codec.base import load_codec
        from models.encoders.log_mel import LogMel

        device = reserved_device()
        self.codec = load_codec(features.codec, features.codebooks).to(device)
        self.log_mel = LogMel(features.log_mel).to(device)
        self.name = uuid4().hex
        self.start = time.monotonic()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Replace the waveforms by flat `codes` and `log_mels`; add the `codec`'s provenance and `EncoderLoad`'s."""
        start = time.monotonic()
        waveforms = _split(row, "waveforms")
        heard = _split(row, "heard") or waveforms
        codes, log_mels = self.codec.encode(waveforms), self.log_mel.of_clips(heard)
        end = time.monotonic()
        return {
            **{key: row[key] for key in ("path", "inputs", "usable", "quarantine")},
            "durations_s": json.dumps([len(waveform) / self.codec.sample_rate for waveform in waveforms]),
            "codec": json.dumps(self.codec.provenance()),
            "codebooks": self.codec.n_codebooks,
            **_join("codes", codes, np.int16),
            **_join("log_mels", log_mels, np.float16),
            "encoder": self.name,
            "device": self.codec.device.type,
            "computing_s": end - start,
            "alive_s": end - self.start,
        }


def write_encoded(row: dict[str, Any], features: FeaturesConfig) -> dict[str, Any]:
    """Write the shard that ShardEncoder computed; return the number of `clips`, `seconds` of audio and the load."""
    clips, mels, quarantine = json.loads(row["usable"]), features.log_mel.n_mels, json.loads(row["quarantine"])
    columns = json.loads(row["durations_s"]), _split(row, "codes", row["codebooks"]), _split(row, "log_mels", mels)
    for clip, duration_s, codes, log_mel in zip(clips, *columns, strict=True):
        clip |= {"duration_s": duration_s, "log_mel": log_mel, "codes": codes}
    metadata = {"inputs": row["inputs"], "codec": json.loads(row["codec"]), "quarantine": quarantine}
    path = storage.here(Path(row["path"]))
    write_shard(path, clips, metadata, row["codebooks"], mels)
    storage.push(path)
    load = {key: row[key] for key in ("encoder", "device", "computing_s", "alive_s")}
    return {"clips": len(clips) + len(quarantine), "seconds": sum(clip["duration_s"] for clip in clips), **load}


class ShardMaker:
    """Runs all stages in one actor: on CPUs, sending waveforms from one process to another gains nothing."""

    def __init__(self, features: FeaturesConfig) -> None:
        self.features = features
        self.encode = ShardEncoder(features)
        self.read = ShardReader(features, self.encode.codec.sample_rate)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return write_encoded(self.encode(self.read(row)), self.features)


def _join(name: str, arrays: list[np.ndarray], dtype: type[np.generic]) -> dict[str, np.ndarray]:
    """Lay arrays [T_i] or [T_i, width] out as two columns of a row: all values, flat, and the numbers T_i."""
    flat = np.concatenate([np.zeros(0, dtype), *(array.ravel() for array in arrays)])
    return {name: flat, f"{name}_lengths": np.array([len(array) for array in arrays], np.int64)}


def _split(row: dict[str, Any], name: str, width: int | None = None) -> list[np.ndarray]:
    """Return the arrays [T_i], or of a `width` [T_i, width], that `_join` laid out."""
    flat = row[name] if width is None else row[name].reshape(-1, width)
    return np.split(flat, np.cumsum(row[f"{name}_lengths"])[:-1]) if len(row[f"{name}_lengths"]) else []


def _audio_sha256(waveform: np.ndarray) -> str:
    """Return the checksum of the sound: equal for a WAV and a FLAC of the same samples."""
    return hashlib.sha256(np.round(waveform * 32767).astype("<i2").tobytes()).hexdigest()
