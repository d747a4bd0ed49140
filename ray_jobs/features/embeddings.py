"""Keep a retriever's audio embeddings of a split beside its features: made once, read by whoever needs them.

`features/<corpus>/<split>/embeddings/<retriever>/*.arrow`, each file for 64 feature shards, with the checksum of the
weights and the fingerprints of the shards that it was made from. So a training that was interrupted goes on where it
was, and embeddings of other weights or other clips are never taken for these. Whoever loads the weights checks that
they are the recorded ones (`ray_jobs.results.member.checked_weights`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from models.files import atomic_write, sha256_of
from ray_jobs.experiment.config import Experiment
from ray_jobs.features.dataset import THREADS, find_shards, read_features, recorded_shards
from ray_jobs.features.files import METADATA, FeaturesError, metadata_of, opened, source_of
from ray_jobs.results.member import MemberMetrics
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory

if TYPE_CHECKING:
    from models.retriever.model import Retriever

COLUMNS = ("clip_id", "audio_embedding")
FOLDER = "embeddings"  # in a split's directory
SHARDS_PER_FILE = 64


def embedded_splits(experiment: Experiment, directory: RunDirectory, retriever: str) -> list[Path]:
    """Return the splits whose embeddings the captioners of a retriever and the searches need."""
    readers = [name for name, member in experiment.members.items() if retriever in member.retrievers()]
    corpora = dict.fromkeys(corpus for name in readers for corpus in experiment.training_corpora(name))
    training = [directory.features(c, "train") for c in corpora if "train" in experiment.corpora[c].splits]
    return [*training, directory.features(experiment.target_corpus, "validation")]


def weights_checksum(member: Path) -> str:
    """Return the SHA-256 of a trained member's weights: from metrics.json, or of the file where an earlier version ran.

    Raises:
        RecordError, FileNotFoundError: if the member is not trained.
    """
    recorded = MemberMetrics.read(member).weights
    return recorded or sha256_of(storage.pull(member / "model.safetensors"))


def are_there(splits: list[Path], retriever: str, weights: str) -> bool:
    """Return whether all embeddings of some splits are there, made with these weights."""
    parts = [part for split in splits for part in _parts(split, retriever)]
    with ThreadPoolExecutor(THREADS) as threads:
        return all(threads.map(lambda part: part.is_there(weights), parts))


def write_embeddings(
    split: Path, retriever: str, weights: str, load: Callable[[], Retriever], share: slice = slice(None)
) -> int:
    """Make what is missing of a split's embeddings, and return the number of clips that were embedded.

    Args:
        retriever: its name.
        weights: the checksum of its weights.
        load: returns it; called only where something is missing.
        share: of the files, for workers that share the split: every world-th from its rank on.
    """
    clips = 0
    for part in _parts(split, retriever)[share]:
        if not part.is_there(weights):
            clips += part.write(load(), weights)
    return clips


class Embeddings:
    """The embeddings [clips, D] of some splits; the files are memory-mapped, and read where rows are used."""

    def __init__(self, files: list[np.ndarray]) -> None:
        """Take the embeddings [clips of the file, D] of each file, in order."""
        self._files = files
        self._ends = np.cumsum([len(file) for file in files])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return a copy [rows, D] of some rows."""
        numbers = np.arange(len(self))[rows]
        of = np.searchsorted(self._ends, numbers, side="right")
        starts = np.concatenate([[0], self._ends[:-1]])
        found = np.empty((len(numbers), self._files[0].shape[1]), np.float32)
        for file in np.unique(of):
            found[of == file] = self._files[file][numbers[of == file] - starts[file]]
        return found


def read_embeddings(splits: list[Path], retriever: str, weights: str, clip_ids: list[str]) -> Embeddings:
    """Open the embeddings of some splits.

    Args:
        clip_ids: of the splits' features, which the embeddings must be of.

    Raises:
        FeaturesError: if they are missing, or of other weights or clips.
    """
    parts = [part for split in splits for part in _parts(split, retriever)]
    listed = ", ".join(storage.uri(split) for split in splits)
    remedy = "`enclap train` makes what is missing"
    for part in parts:
        if not part.is_there(weights):
            raise FeaturesError(
                f"{storage.uri(part.path)}: found no audio embeddings of {retriever} with its present weights; {remedy}"
            )
    read = [part.read() for part in parts]
    found = [clip_id for ids, _ in read for clip_id in ids]
    if found != clip_ids:
        raise FeaturesError(
            f"{listed}: audio embeddings of {retriever} are of other clips ({len(found)}) than the features "
            f"({len(clip_ids)}); remove the {FOLDER} directories there, and {remedy}"
        )
    return Embeddings([matrix for _, matrix in read])


@dataclass(frozen=True)
class _Part:
    """A file of embeddings, and the feature shards that it is for."""

    path: Path
    split: Path
    shards: slice  # of the split's shards
    inputs: dict[str, str]  # of each of these shards, by its name

    def is_there(self, weights: str) -> bool:
        if not storage.exists(self.path):
            return False
        try:
            with source_of(self.path) as source, opened(self.path, source) as file:
                return metadata_of(file) == self._key(weights) and file.schema.names == list(COLUMNS)
        except FeaturesError:  # damaged
            return False

    def write(self, retriever: Retriever, weights: str) -> int:
        clips = read_features([self.split], shards=self.shards).hearing(retriever.waveform_rate)
        embeddings = retriever.audio_embeddings(clips.audio)
        kind = pa.list_(pa.float32(), embeddings.shape[1])
        column = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.astype(np.float32).ravel()), type=kind)
        schema = pa.schema(
            dict(zip(COLUMNS, (pa.string(), kind), strict=True)),
            metadata={METADATA: json.dumps(self._key(weights)).encode()},
        )
        local = storage.here(self.path)
        with atomic_write(local) as partial, pa.ipc.new_file(partial, schema) as file:
            file.write_batch(pa.record_batch([pa.array(clips.clip_ids), column], schema=schema))
        storage.push(self.path)
        return len(clips)

    def read(self) -> tuple[list[str], np.ndarray]:
        """Return the clips and their embeddings [clips, D], a view of the mapped file."""
        path = storage.pull(self.path)
        with pa.memory_map(str(path)) as source, opened(path, source) as file:
            batch = file.get_batch(0)
            clip_ids, column = (batch[name] for name in COLUMNS)
            flat = column.values.to_numpy(zero_copy_only=True)
            return clip_ids.to_pylist(), flat.reshape(len(clip_ids), -1)

    def _key(self, weights: str) -> dict[str, object]:
        return {"weights": weights, "shards": self.inputs}


def _parts(split: Path, retriever: str) -> list[_Part]:
    made, names = recorded_shards(split) or {}, [shard.name for shard in find_shards(split)]
    parts = []
    for number, at in enumerate(range(0, len(names), SHARDS_PER_FILE)):
        shards = slice(at, at + SHARDS_PER_FILE)
        inputs = {name: made.get(name, "") for name in names[shards]}
        parts.append(_Part(split / FOLDER / retriever / f"{number:05d}.arrow", split, shards, inputs))
    return parts
