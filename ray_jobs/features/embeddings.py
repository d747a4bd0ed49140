"""Keep a retriever's embeddings of a split beside its features: made once, read by whoever needs them.

`features/<corpus>/<split>/embeddings/<retriever>/*.arrow` has those of the audio, which captioners, searches and
students read; `.../caption_embeddings/<retriever>/*.arrow` those of every caption, which students read (distillation).
Each file is for 64 feature shards, with the checksum of the weights and the fingerprints of the shards that it was made
from. So a training that was interrupted goes on where it was, and embeddings of other weights or other clips are never
taken for these. Whoever loads the weights checks that they are the recorded ones
(`ray_jobs.results.member.checked_weights`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from models.files import atomic_write, sha256_of
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import AnyMember
from ray_jobs.features.dataset import THREADS, Features, read_features, recorded_shards
from ray_jobs.features.files import METADATA, FeaturesError, columns_of, find_shards, metadata_of, opened, source_of
from ray_jobs.results.member import MemberMetrics
from ray_jobs.run import storage
from ray_jobs.run.directory import RunDirectory

if TYPE_CHECKING:
    from models.retriever.model import Retriever

SHARDS_PER_FILE = 64
REMEDY = "`enclap train` makes what is missing"


@dataclass(frozen=True)
class Kind:
    """What is embedded: a column of the files in a folder of each split's directory."""

    what: str  # for messages
    folder: str
    columns: tuple[str, str]
    make: Callable[[Retriever, Features], pa.Array]  # one item a clip, the second column


def _embed_audio(retriever: Retriever, clips: Features) -> pa.Array:
    """Return the clips' audio embeddings, D float32 a clip."""
    return _rows(retriever.audio_embeddings(clips.audio), pa.float32())


def _embed_captions(retriever: Retriever, clips: Features) -> pa.Array:
    """Return the embeddings of each clip's captions, a list of D float16 a caption: there are several a clip."""
    texts = list(chain.from_iterable(clips.captions))
    ends = np.cumsum([0, *map(len, clips.captions)], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, _rows(retriever.text_embeddings(texts), pa.float16()))


def _rows(matrix: np.ndarray, kind: pa.DataType) -> pa.FixedSizeListArray:
    flat = pa.array(matrix.astype(kind.to_pandas_dtype()).ravel(), kind)
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


AUDIO = Kind("audio embeddings", "embeddings", ("clip_id", "audio_embedding"), _embed_audio)
CAPTIONS = Kind("caption embeddings", "caption_embeddings", ("clip_id", "caption_embeddings"), _embed_captions)


def embedded_splits(experiment: Experiment, directory: RunDirectory, retriever: str) -> list[Path]:
    """Return the splits whose audio embeddings the captioners and students of a retriever, and the searches need."""
    readers = [name for name, member in experiment.members.items() if _reads(experiment, member, retriever)]
    validation = directory.features(experiment.target_corpus, "validation")
    return list(dict.fromkeys([*_training_splits(experiment, directory, readers), validation]))


def captioned_splits(experiment: Experiment, directory: RunDirectory, retriever: str) -> list[Path]:
    """Return the splits of whose captions the students of a retriever need embeddings."""
    students = [name for name, member in experiment.members.items() if retriever in member.teachers()]
    return _training_splits(experiment, directory, students)


def _reads(experiment: Experiment, member: AnyMember, retriever: str) -> bool:
    """Return whether a member reads a retriever's audio embeddings of its clips, for itself or for its teachers."""
    of_teachers = (experiment.members[teacher].retrievers() for teacher in member.teachers())
    return retriever in chain(member.retrievers(), member.teachers(), *of_teachers)


def _training_splits(experiment: Experiment, directory: RunDirectory, members: list[str]) -> list[Path]:
    splits = dict.fromkeys(split for name in members for split in experiment.training_splits(name))
    return [directory.features(*split) for split in splits]


def weights_checksum(member: Path) -> str:
    """Return the SHA-256 of a trained member's weights: from metrics.json, or of the file where an earlier version ran.

    Raises:
        RecordError, FileNotFoundError: if the member is not trained.
    """
    recorded = MemberMetrics.read(member).weights
    return recorded or sha256_of(storage.pull(member / "model.safetensors"))


def are_there(splits: list[Path], retriever: str, weights: str, kind: Kind = AUDIO) -> bool:
    """Return whether all embeddings of some splits are there, made with these weights."""
    parts = [part for split in splits for part in _parts(split, retriever, kind)]
    with ThreadPoolExecutor(THREADS) as threads:
        return all(threads.map(lambda part: part.is_there(weights), parts))


def write_embeddings(
    split: Path,
    retriever: str,
    weights: str,
    load: Callable[[], Retriever],
    share: slice = slice(None),
    kind: Kind = AUDIO,
) -> int:
    """Make what is missing of a split's embeddings, and return the number of clips that were embedded.

    Args:
        retriever: its name.
        weights: the checksum of its weights.
        load: returns it; called only where something is missing.
        share: of the files, for workers that share the split: every world-th from its rank on.
    """
    clips = 0
    for part in _parts(split, retriever, kind)[share]:
        if not part.is_there(weights):
            clips += part.write(load(), weights)
    return clips


class Embeddings:
    """The embeddings [clips or captions, D] of some splits; the files are mapped, and read where rows are used."""

    def __init__(self, files: list[np.ndarray]) -> None:
        """Take the embeddings [rows of the file, D] of each file, in order."""
        self._files = files
        self._ends = np.cumsum([len(file) for file in files])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return a copy [rows, D] of some rows, float32."""
        numbers = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        of = np.searchsorted(self._ends, numbers, side="right")
        starts = np.concatenate([[0], self._ends[:-1]])
        found = np.empty((len(numbers), self._files[0].shape[1]), np.float32)
        for file in np.unique(of):
            found[of == file] = self._files[file][numbers[of == file] - starts[file]]
        return found


def side_by_side(embeddings: list[Embeddings | np.ndarray], clips: slice | np.ndarray) -> np.ndarray:
    """Return some clips' embeddings by several retrievers, [clips, sum of D]."""
    return np.concatenate([one[clips] for one in embeddings], 1)


def embeddings_of_each(
    splits: list[Path], weights: dict[str, str], clip_ids: list[str]
) -> list[Embeddings | np.ndarray]:
    """Open the embeddings by each retriever, given with the checksum of its weights; `no_embedding` if there is none.

    Raises:
        FeaturesError: see `read_embeddings`.
    """
    from models.captioner.model import no_embedding  # loads torch

    found = [read_embeddings(splits, name, checksum, clip_ids) for name, checksum in weights.items()]
    return [*found] or [no_embedding(len(clip_ids))]


def read_embeddings(splits: list[Path], retriever: str, weights: str, clip_ids: list[str]) -> Embeddings:
    """Open the embeddings of some splits.

    Args:
        clip_ids: of the splits' features, which the embeddings must be of.

    Raises:
        FeaturesError: if they are missing, or of other weights or clips.
    """
    read = _read(splits, retriever, weights, AUDIO)
    _refuse_others([clip_id for part in read for clip_id in part.clip_ids], clip_ids, splits, retriever, AUDIO)
    return Embeddings([part.matrix for part in read])


def read_caption_embeddings(splits: list[Path], retriever: str, weights: str, clips: Features) -> Embeddings:
    """Open the embeddings of all captions of some splits, in the order of `clips.captions`, clip by clip.

    Args:
        clips: the splits' features.

    Raises:
        FeaturesError: if they are missing, or of other weights, clips or captions.
    """
    read = _read(splits, retriever, weights, CAPTIONS)
    found = [one for part in read for one in zip(part.clip_ids, part.counts, strict=True)]
    _refuse_others(found, list(zip(clips.clip_ids, map(len, clips.captions), strict=True)), splits, retriever, CAPTIONS)
    return Embeddings([part.matrix for part in read])


def _read(splits: list[Path], retriever: str, weights: str, kind: Kind) -> list[_Read]:
    parts = [part for split in splits for part in _parts(split, retriever, kind)]
    for part in parts:
        if not part.is_there(weights):
            raise FeaturesError(
                f"{storage.uri(part.path)}: found no {kind.what} of {retriever} with its present weights; {REMEDY}"
            )
    return [part.read() for part in parts]


def _refuse_others(found: list[Any], expected: list[Any], splits: list[Path], retriever: str, kind: Kind) -> None:
    if found != expected:
        listed = ", ".join(storage.uri(split) for split in splits)
        raise FeaturesError(
            f"{listed}: {kind.what} of {retriever} are of other clips ({len(found)}) than the features "
            f"({len(expected)}); remove the {kind.folder} directories there, and {REMEDY}"
        )


@dataclass(frozen=True)
class _Read:
    """What a file holds."""

    clip_ids: list[str]
    counts: list[int]  # rows of each clip
    matrix: np.ndarray  # [rows, D], a view of the mapped file


@dataclass(frozen=True)
class _Part:
    """A file of embeddings, and the feature shards that it is for."""

    path: Path
    kind: Kind
    split: Path
    shards: slice  # of the split's shards
    inputs: dict[str, str]  # of each of these shards, by its name

    def is_there(self, weights: str) -> bool:
        if not storage.exists(self.path):
            return False
        try:
            with source_of(self.path) as source, opened(self.path, source) as file:
                return metadata_of(file) == self._key(weights) and file.schema.names == list(self.kind.columns)
        except FeaturesError:  # damaged
            return False

    def write(self, retriever: Retriever, weights: str) -> int:
        clips = read_features([self.split], shards=self.shards).hearing(retriever.waveform_rate)
        column = self.kind.make(retriever, clips)
        schema = pa.schema(
            dict(zip(self.kind.columns, (pa.string(), column.type), strict=True)),
            metadata={METADATA: json.dumps(self._key(weights)).encode()},
        )
        local = storage.here(self.path)
        with atomic_write(local) as partial, pa.ipc.new_file(partial, schema) as file:
            file.write_batch(pa.record_batch([pa.array(clips.clip_ids), column], schema=schema))
        storage.push(self.path)
        return len(clips)

    def read(self) -> _Read:
        path = storage.pull(self.path)
        with pa.memory_map(str(path)) as source, opened(path, source) as file:
            clip_ids, column = columns_of(file, self.kind.columns)
            counts = [1] * len(column)
            if not pa.types.is_fixed_size_list(column.type):
                counts, column = column.value_lengths().to_pylist(), column.values
            flat = column.values.to_numpy(zero_copy_only=True)
            return _Read(clip_ids.to_pylist(), counts, flat.reshape(-1, column.type.list_size))

    def _key(self, weights: str) -> dict[str, object]:
        return {"weights": weights, "shards": self.inputs}


def _parts(split: Path, retriever: str, kind: Kind) -> list[_Part]:
    made, names = recorded_shards(split) or {}, [shard.name for shard in find_shards(split)]
    parts = []
    for number, at in enumerate(range(0, len(names), SHARDS_PER_FILE)):
        shards = slice(at, at + SHARDS_PER_FILE)
        inputs = {name: made.get(name, "") for name in names[shards]}
        parts.append(_Part(split / kind.folder / retriever / f"{number:05d}.arrow", kind, split, shards, inputs))
    return parts
