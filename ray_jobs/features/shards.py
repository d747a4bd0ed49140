"""Compute feature shards with Ray Data: assign clips to files, and run the stages that make a file.

A shard is the unit of parallel work, of resuming (a shard exists or not) and of memory (no stage holds more than one).
Without a GPU one pool of actors reads and encodes; with GPUs a pool of readers feeds a pool of encoders, and Ray
Data's backpressure keeps the readers from running ahead of them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import ray.data
from tqdm import tqdm

from corpora.audio import files_of, load_clip
from models.audio import AudioError
from ray_jobs.experiment.config import FeaturesConfig, PrepareResources
from ray_jobs.experiment.fingerprint import fingerprint
from ray_jobs.features.files import EARLIER_SHARDS, SHARDS, is_whole, shard_metadata, write_shard
from ray_jobs.run import storage
from ray_jobs.run.console import say
from ray_jobs.run.session import gpu_share

CLIP_COLUMNS = ["clip_id", "path", "captions", "freesound_id", "youtube_id"]
STAT_THREADS = 32  # a network file system answers many requests at the same time
LOG_S = 10.0  # seconds between the progress bar's lines where no terminal redraws it


@dataclass(frozen=True)
class Shard:
    """A feature file and the clips of a split that it holds."""

    path: str
    inputs: str
    clips: list[dict[str, Any]]  # CLIP_COLUMNS

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def is_written(self) -> bool:
        path = Path(self.path)
        return is_whole(path) and shard_metadata(path)["inputs"] == self.inputs


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


def write_shards(shards: list[Shard], features: FeaturesConfig, codec_rate: int, resources: PrepareResources) -> None:
    """Make the missing shards of all corpora and splits, with a progress bar."""
    with ThreadPoolExecutor(STAT_THREADS) as threads:
        todo = [shard for shard, is_there in zip(shards, threads.map(Shard.is_written, shards)) if not is_there]
    clips = sum(len(shard.clips) for shard in todo)
    say(f"prepare: {len(todo)} shards of {clips} clips to make, {len(shards) - len(todo)} done already")
    if not todo:
        return
    seconds = 0.0
    with tqdm(total=clips, unit=" clips", desc="prepare", mininterval=1 if sys.stderr.isatty() else LOG_S) as bar:
        for made in make_shards(todo, features, codec_rate, resources):
            seconds += made["seconds"]
            bar.set_postfix_str(f"{seconds / 3600:.2f} h of audio", refresh=False)
            bar.update(made["clips"])
    say(f"prepare: {clips} clips, {seconds / 3600:.2f} hours of audio")


def make_shards(
    shards: list[Shard], features: FeaturesConfig, codec_rate: int, resources: PrepareResources
) -> Iterator[dict[str, Any]]:
    """Write shards; yield the number of `clips` of each finished one, and the `seconds` of audio in it."""
    rows = ray.data.from_items([{"shard": shard.to_json()} for shard in shards], override_num_blocks=len(shards))
    number, gpus = min(encoders(resources), len(shards)), gpu_share(resources.gpus)
    if not gpus:
        made = rows.map(
            ShardMaker,
            fn_constructor_args=(features,),
            num_cpus=resources.cpus,
            compute=ray.data.ActorPoolStrategy(size=number),
        )
    else:
        readers = max(1, int(ray.cluster_resources()["CPU"] / resources.cpus) - 1)
        made = rows.map(
            ShardReader,
            fn_constructor_args=(features, codec_rate),
            num_cpus=resources.cpus,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=readers),
        ).map(
            ShardEncoder,
            fn_constructor_args=(features,),
            num_cpus=0,
            num_gpus=gpus,
            compute=ray.data.ActorPoolStrategy(size=number),
        )
    return iter(made.iter_rows())


def encoders(resources: PrepareResources) -> int:
    """Return the number of actors that encode."""
    cluster, gpus = ray.cluster_resources(), gpu_share(resources.gpus)
    fit = cluster["GPU"] / gpus if gpus else cluster.get("CPU", 1) / resources.cpus
    return resources.workers or max(1, int(fit))


# --- the stages ----------------------------------------------------------------------------------------------------


class ShardReader:
    """Decodes, resamples and computes log-mels; clips that cannot be used are set aside with their reasons."""

    def __init__(self, features: FeaturesConfig, codec_rate: int) -> None:
        from models.encoders.log_mel import LogMel

        self.features = features
        self.codec_rate = codec_rate
        self.log_mel = LogMel(features.log_mel)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Read `row["shard"]` (JSON); return `usable`, `quarantine` (JSON) and the flat `waveforms` and `log_mels`."""
        shard = Shard(**json.loads(row["shard"]))
        usable: list[dict[str, Any]] = []
        quarantine: list[tuple[str, str, str]] = []
        waveforms, log_mels = [], []
        for clip in shard.clips:
            try:
                waveform, log_mel = self._read(clip["path"])
            except AudioError as error:
                quarantine.append((clip["clip_id"], clip["path"], str(error)))
                continue
            waveforms.append(waveform)
            log_mels.append(log_mel)
            usable.append(
                clip | {"samples": len(waveform), "frames": len(log_mel), "audio_sha256": _audio_sha256(waveform)}
            )
        return {
            "path": shard.path,
            "inputs": shard.inputs,
            "usable": json.dumps(usable),
            "quarantine": json.dumps(quarantine),
            "waveforms": np.concatenate([np.zeros(0, np.float32), *waveforms]),
            "log_mels": np.concatenate([np.zeros(0, np.float16), *(log_mel.ravel() for log_mel in log_mels)]),
        }

    def _read(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the waveform [samples] for the codec and the log-mel [frames, mels], each at its sample rate."""
        longest, rate = self.features.max_duration_s, self.features.log_mel.sample_rate
        waveform = load_clip(path, self.codec_rate, longest, strict=True)
        same = rate == self.codec_rate
        return waveform, self.log_mel(waveform if same else load_clip(path, rate, longest))


class ShardEncoder:
    """Encodes the clips that ShardReader read, and writes the shard."""

    def __init__(self, features: FeaturesConfig) -> None:
        from models.codec.base import load_codec

        self.features = features
        self.codec = load_codec(features.codec, features.codebooks)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write the shard; return the number of `clips` it was made of and the `seconds` of audio in it."""
        clips, mels = json.loads(row["usable"]), self.features.log_mel.n_mels
        waveforms = list(_split(row["waveforms"], [clip.pop("samples") for clip in clips]))
        log_mels = _split(row["log_mels"].reshape(-1, mels), [clip.pop("frames") for clip in clips])
        codes = self.codec.encode(waveforms) if clips else []
        for clip, waveform, log_mel, own in zip(clips, waveforms, log_mels, codes, strict=True):
            clip |= {"duration_s": len(waveform) / self.codec.sample_rate, "log_mel": log_mel, "codes": own}
        quarantine = json.loads(row["quarantine"])
        metadata = {"inputs": row["inputs"], "codec": self.codec.provenance(), "quarantine": quarantine}
        path = storage.here(Path(row["path"]))
        write_shard(path, clips, metadata, self.codec.n_codebooks, mels)
        storage.push(path)
        return {"clips": len(clips) + len(quarantine), "seconds": sum(clip["duration_s"] for clip in clips)}


class ShardMaker:
    """Runs both stages in one actor: on CPUs, sending waveforms from one process to another gains nothing."""

    def __init__(self, features: FeaturesConfig) -> None:
        self.encode = ShardEncoder(features)
        self.read = ShardReader(features, self.encode.codec.sample_rate)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return self.encode(self.read(row))


def _split(flat: np.ndarray, lengths: list[int]) -> Iterator[np.ndarray]:
    start = 0
    for length in lengths:
        yield flat[start : start + length]
        start += length


def _audio_sha256(waveform: np.ndarray) -> str:
    """Return the checksum of the sound: equal for a WAV and a FLAC of the same samples."""
    return hashlib.sha256(np.round(waveform * 32767).astype("<i2").tobytes()).hexdigest()
