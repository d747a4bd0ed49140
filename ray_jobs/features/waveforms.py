"""Keep clips as 16-bit waveforms beside their features, for the audio encoders of transformers.

`features/<corpus>/<split>/waveforms/<sampling rate>/*.arrow`: one file for each feature shard, with the same clips in
the same order, made where a member reads waveforms of this rate. So features that are there stay as they are when such
a member is added, and no clip is encoded again. A waveform, not the inputs of a model: at 16 kHz it takes less than
these or log-mels, serves all models of its rate, and can be cropped and mixed in training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from corpora.audio import load_clip
from models.audio import to_int16
from models.console import count, progress_bar, say
from models.files import atomic_write
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import RetrieverMember
from ray_jobs.features.files import METADATA, SHARDS, FeaturesError, columns_of, inputs_of, opened, read_table
from ray_jobs.run import storage

FOLDER = "waveforms"  # in a split's directory
COLUMN = "waveform"
THREADS = 32


def waveform_rates(experiment: Experiment) -> list[int]:
    """Return the sampling rates in Hz of the waveforms that members read."""
    members = [member for member in experiment.members.values() if isinstance(member, RetrieverMember)]
    return sorted({rate for member in members if (rate := member.audio_encoder.waveform_rate)})


def waveform_file(shard: Path, rate: int) -> Path:
    """Return where the waveforms of a feature shard's clips are kept."""
    return shard.parent / FOLDER / str(rate) / shard.name


def missing_waveforms(shards: Sequence[Path], rate: int) -> list[Path]:
    """Return the feature shards whose waveforms are not there, or are those of other clips."""
    with ThreadPoolExecutor(THREADS) as threads:
        there = threads.map(lambda shard: inputs_of(waveform_file(shard, rate)) == inputs_of(shard), shards)
        return [shard for shard, found in zip(shards, there, strict=True) if not found]


def write_waveforms(splits: dict[Path, list[Path]], experiment: Experiment) -> None:
    """Make the waveforms that members read and that are missing, with Ray Data.

    Args:
        splits: the feature shards of each split's directory.

    Raises:
        AudioError: if a clip of the features cannot be read any more.
    """
    rates = waveform_rates(experiment)
    for folder, shards in splits.items():
        _remove_others(folder, {shard.name for shard in shards}, rates)
    shards = [shard for of_split in splits.values() for shard in of_split]
    todo = [{"shard": str(shard), "rate": rate} for rate in rates for shard in missing_waveforms(shards, rate)]
    if not todo:
        return
    spelled = " and ".join(f"{rate} Hz" for rate in rates)
    say(f"prepare: waveforms at {spelled} of {count(len(todo), 'shard')} to make")
    rows = ray.data.from_items(todo, override_num_blocks=len(todo))
    longest = experiment.features.max_duration_s
    made = rows.map(write_shard_waveforms, fn_args=(longest,), num_cpus=experiment.prepare.cpus)
    with progress_bar(len(todo), "shards", "waveforms") as bar:
        for _ in made.iter_rows():
            bar.update(1)


def write_shard_waveforms(row: dict[str, Any], longest_s: float) -> dict[str, Any]:
    """Write the waveforms of a feature shard's clips (`shard`) at a sampling rate (`rate`); return their number."""
    shard, rate = Path(row["shard"]), int(row["rate"])
    table = read_table(shard, ["clip_id", "path"])
    waveforms = [to_int16(load_clip(path, rate, longest_s)) for path in table.columns["path"]]
    schema = pa.schema(
        {"clip_id": pa.string(), COLUMN: pa.large_list(pa.int16())},
        metadata={METADATA: json.dumps({"inputs": table.metadata.get("inputs", "")}).encode()},
    )
    offsets = np.cumsum([0, *map(len, waveforms)], dtype=np.int64)
    samples = np.concatenate([np.zeros(0, np.int16), *waveforms])
    column = pa.LargeListArray.from_arrays(offsets, pa.array(samples)).cast(schema.field(COLUMN).type)
    path = waveform_file(shard, rate)
    local = storage.here(path)
    with atomic_write(local) as partial, pa.ipc.new_file(partial, schema) as file:
        file.write_batch(pa.record_batch([pa.array(table.columns["clip_id"], pa.string()), column], schema=schema))
    storage.push(path)
    return {"clips": len(waveforms)}


class MappedWaveforms:
    """The waveforms of a shard on this node, memory-mapped as `MappedShard` maps matrices."""

    def __init__(self, path: Path) -> None:
        with pa.memory_map(str(path)) as source, opened(path, source) as file:
            (column,) = columns_of(file, [COLUMN])
            self._samples = column.values.to_numpy(zero_copy_only=True)
            self._offsets = column.offsets.to_numpy()

    def matrix(self, column: str, row: int) -> np.ndarray:
        """Return a clip's samples [time], int16: a view, not to be written to."""
        return self._samples[self._offsets[row] : self._offsets[row + 1]]


def require_waveforms(shards: Sequence[Path], rate: int) -> list[Path]:
    """Return the files of some shards' waveforms.

    Raises:
        FeaturesError: naming the first shard whose waveforms are missing or are those of other clips.
    """
    if missing := missing_waveforms(shards, rate):
        raise FeaturesError(
            f"{storage.uri(waveform_file(missing[0], rate))}: found no waveforms at {rate} Hz of the clips in "
            f"{missing[0].name} ({len(missing)} of {len(shards)} shards lack them); `enclap prepare` makes them"
        )
    return [waveform_file(shard, rate) for shard in shards]


def _remove_others(split: Path, wanted: set[str], rates: list[int]) -> None:
    """Remove the waveforms of shards that a split has no more."""
    for rate in rates:
        for path in storage.listing(split / FOLDER / str(rate), SHARDS):
            if path.name not in wanted:
                storage.remove(path)
