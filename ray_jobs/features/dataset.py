"""Read the clips of one or several splits, whose matrices stay in their shards until they are used."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.features.files import (
    FeaturesError,
    MappedShard,
    ShardTable,
    file_size,
    find_shards,
    read_table,
)
from ray_jobs.features.shard_cache import ShardCache
from ray_jobs.features.waveforms import COLUMN as WAVEFORM
from ray_jobs.features.waveforms import MappedWaveforms, require_waveforms, waveform_rates
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory, marker, require

TABLE = ("clip_id", "path", "captions", "duration_s")
MAPPED = 32_768  # shards that are mapped at the same time: Linux lets a process map 65,530 pieces by default
THREADS = 32  # a network file system or store answers many requests at the same time
RECORD = "shards"  # in a corpus's marker: the shards of each split
DATA = "data"  # there, too: the SHA-256 of each split's clips, by `clips_digest`
ATTEMPTS = 5  # to map a shard that other processes may remove from the node's disk


@dataclass
class Features:
    """The clips of one or several splits; item i of each list belongs to clip i."""

    clip_ids: list[str]
    paths: list[str]
    captions: list[list[str]]
    durations_s: list[float]
    codes: Sequence[np.ndarray]  # [T_i, Q] int16
    log_mels: Sequence[np.ndarray]  # [frames_i, mels] float16
    origins: list[int]  # index of the directory that each clip is from
    shards: list[int]  # number of the file that each clip is in, over all directories
    codec: dict[str, Any]  # provenance of the codes
    waveforms: Sequence[np.ndarray] | None = None  # [samples_i] int16, where `hearing` has opened them

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def file_names(self) -> list[str]:
        """Return the file names of clips for submissions; for a row of a Parquet file its clip_id."""
        pairs = zip(self.clip_ids, self.paths, strict=True)
        return [clip_id if ".parquet#" in path else Path(path).name for clip_id, path in pairs]

    def head(self, clips: int | None) -> Features:
        """Return the first `clips` clips; all of them for None."""
        names = [f.name for f in fields(self) if f.name != "codec" and getattr(self, f.name) is not None]
        lists = {name: getattr(self, name)[:clips] for name in names}
        return replace(self, **lists)

    @property
    def audio(self) -> Sequence[np.ndarray]:
        """Return what a retriever reads: the waveforms that `hearing` has opened, or else the log-mels."""
        return self.log_mels if self.waveforms is None else self.waveforms

    def hearing(self, rate: int | None) -> Features:
        """Return these clips with their waveforms at a sampling rate as `audio`; for None, with their log-mels.

        Raises:
            FeaturesError: if there are no such waveforms of these clips.
        """
        if rate is None:
            return replace(self, waveforms=None)
        assert isinstance(self.log_mels, StoredMatrices)
        return replace(self, waveforms=self.log_mels.beside(rate))

    def expect(self, clips: np.ndarray) -> None:
        """Say in about which order clips are read next, so that shards in a store are fetched ahead."""
        if isinstance(self.audio, StoredMatrices):
            numbers, first = np.unique(np.asarray(self.shards)[clips], return_index=True)
            self.audio.shards.cache.expect(numbers[np.argsort(first)].tolist())

    def check_cache(self, shards: int, setting: str) -> None:
        """Check that this node's disk may hold as many shards at the same time (`ShardCache.require`)."""
        if isinstance(self.audio, StoredMatrices):
            self.audio.shards.cache.require(shards, setting)


class OpenShards:
    """The shards of a corpus, memory-mapped: those of a store when they are first used, others all in the beginning.

    Small objects that are made as an epoch goes on would lie between its batches, and keep the memory of batches that
    are gone from being used again for the next ones.
    """

    def __init__(self, cache: ShardCache, kind: type[MappedShard] | type[MappedWaveforms] = MappedShard) -> None:
        self.cache, self.kind = cache, kind
        self.get = lru_cache(max(1, cache.capacity) if cache.is_bounded else MAPPED)(self._map)
        if not cache.is_remote:
            with ThreadPoolExecutor(THREADS) as threads:
                list(threads.map(self.get, range(min(len(cache), MAPPED))))

    def _map(self, number: int) -> MappedShard | MappedWaveforms:
        for _ in range(ATTEMPTS - 1):
            try:
                return self.kind(self.cache.fetch(number))
            except FileNotFoundError:  # another process of this node made room
                continue
        return self.kind(self.cache.fetch(number))


class StoredMatrices(Sequence[np.ndarray]):
    """One column of many shards; items are views of the files, which are read when their numbers are used."""

    def __init__(self, column: str, shards: OpenShards, of_clip: np.ndarray, rows: np.ndarray) -> None:
        """Take the shard of each clip, and the clip's row in it."""
        self.column, self.shards, self._of_clip, self._rows = column, shards, of_clip, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return StoredMatrices(self.column, self.shards, self._of_clip[at], self._rows[at])
        return self.shards.get(int(self._of_clip[at])).matrix(self.column, self._rows[at])

    def beside(self, rate: int) -> StoredMatrices:
        """Return the same clips' waveforms at a sampling rate, which are kept beside these shards.

        Raises:
            FeaturesError: if there are none.
        """
        cache = self.shards.cache
        paths = require_waveforms(cache.shards, rate)
        with ThreadPoolExecutor(THREADS) as threads:
            sizes = list(threads.map(file_size, paths))
        opened = OpenShards(ShardCache(paths, sizes, cache.limit), MappedWaveforms)
        return StoredMatrices(WAVEFORM, opened, self._of_clip, self._rows)


def read_features(directories: list[Path], cache_bytes: int | None = None, shards: slice = slice(None)) -> Features:
    """Read the clips of the given splits; their codes and log-mels are memory-mapped, and fetched when they are used.

    Args:
        cache_bytes: of this node's disk that features of a store may take; if none, they stay once they are fetched.
        shards: of each split, which are read.

    Raises:
        FeaturesError: if there is no clip, a shard is damaged, of an earlier version or not the one that was made, or
            the shards come from different codecs.
    """
    found = [(origin, shard) for origin, folder in enumerate(directories) for shard in find_shards(folder)[shards]]
    with ThreadPoolExecutor(THREADS) as threads:
        tables = list(threads.map(lambda one: read_table(one[1], TABLE), found))
    paths = [shard for _, shard in found]
    if shards == slice(None):
        for origin, folder in enumerate(directories):
            own = [(path, table) for (of, path), table in zip(found, tables, strict=True) if of == origin]
            _refuse_others(folder, {path.name: table.metadata.get("inputs") for path, table in own})
    codec = _one_codec(paths, tables)
    counts = [len(table.columns["clip_id"]) for table in tables]
    if not sum(counts):
        listed = ", ".join(storage.uri(directory) for directory in directories)
        raise FeaturesError(f"no clips in {listed}; expected feature shards made by `enclap prepare`")
    open_shards = OpenShards(ShardCache(paths, [table.size for table in tables], cache_bytes))
    of_clip = np.repeat(np.arange(len(found)), counts)
    rows = np.concatenate([np.arange(count) for count in counts])
    return Features(
        clip_ids=_joined(tables, "clip_id"),
        paths=_joined(tables, "path"),
        captions=_joined(tables, "captions"),
        durations_s=_joined(tables, "duration_s"),
        codes=StoredMatrices("codes", open_shards, of_clip, rows),
        log_mels=StoredMatrices("log_mel", open_shards, of_clip, rows),
        origins=np.repeat([origin for origin, _ in found], counts).tolist(),
        shards=of_clip.tolist(),
        codec=codec,
    )


def recorded_shards(split: Path) -> dict[str, str] | None:
    """Return what `prepare` made of a split: the fingerprint of each shard's inputs, by its name.

    Returns:
        None where it is not recorded, as by earlier versions.
    """
    found: dict[str, str] | None = marker(split.parent).get(RECORD, {}).get(split.name)
    return found


def _refuse_others(split: Path, found: dict[str, Any]) -> None:
    """Refuse shards that are missing, or that other clips or settings made, such as a copy of another split's.

    Raises:
        FeaturesError: naming the first of them.
    """
    made = recorded_shards(split)
    if made is None or made == found:
        return
    name = next(name for name in sorted({*made, *found}) if made.get(name) != found.get(name))
    what = "is missing" if name not in found else "is not the file that was made"
    raise FeaturesError(f"{storage.uri(split / name)}: {what}; `enclap prepare` makes it again")


def require_features(directory: RunDirectory) -> None:
    """Check that the features of all corpora are there, in today's form.

    Raises:
        NotReadyError, FeaturesError: naming the corpus and what to run.
    """
    experiment = directory.experiment
    for name, corpus in experiment.corpora.items():
        require(directory.features(name), directory.features_inputs(), "prepare", experiment.name)
        for split in corpus.splits:
            shards = find_shards(directory.features(name, split))
            for rate in waveform_rates(experiment):
                require_waveforms(shards, rate)


def _joined(tables: list[ShardTable], column: str) -> list[Any]:
    return [value for table in tables for value in table.columns[column]]


def _one_codec(shards: list[Path], tables: list[ShardTable]) -> dict[str, Any]:
    """Return the provenance of the codes, which must be the same in all shards."""
    codecs: list[Any] = [table.metadata.get("codec") for table in tables]
    for shard, codec in zip(shards, codecs, strict=True):
        if not isinstance(codec, dict):
            raise FeaturesError(f"{shard}: found no record of its codec, expected one; `enclap prepare` makes it again")
        if codec != codecs[0]:
            differing = [key for key in {**codecs[0], **codec} if codec.get(key) != codecs[0].get(key)]
            values = "; ".join(f"{key} {codec.get(key)!r}, there {codecs[0].get(key)!r}" for key in differing)
            raise FeaturesError(
                f"{shard}: codes of another codec than in {shards[0]}: {values}; prepare both with one codec"
            )
    return codecs[0] if codecs else {}
