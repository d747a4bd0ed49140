"""Index audio files by their embeddings, search the index, and keep it on disk."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..files import CheckpointError, atomic_write, write_json
from ..records import parse_record
from ..retriever.model import negative_distances
from .captioner_fusion import CODES
from .retrieval_columns import ragged

FORMAT = 1
RECORD = "collection.json"
LARGE = 20_000  # clips from which on only the nearest of each retriever are scored
DEPTH = 64  # nearest clips looked up for each retriever; four times as many where they turn out too few


FRAMES = "captioners/frames"  # [N] on disk, where codes of all clips lie one after another


class IndexRecord(BaseModel):
    """collection.json: the files of an index, and where their embeddings are."""

    model_config = ConfigDict(extra="forbid")
    format: int
    retrievers: dict[str, str]  # name to the checksum of its weights
    embeddings: str = "collection.safetensors"  # file beside this one; the default is that of early versions
    paths: list[str]
    stamps: list[str] = []  # one for each path
    captioners: dict[str, str] = {}  # name to the checksum of the weights of those that something is kept for
    codes: str | None = None  # file of all clips' codes


class AudioIndex:
    """N audio clips by path, each with one embedding per retriever, as `Retriever.under_metric` gives them.

    Further arrays of a row a clip may be kept for captioners, by names with a `/`; an index has those alone that all
    additions gave it.

    `stamps` holds size and time of change of each path's file when it was added (`models.files.stamp`), where known.
    `left_unread` says whether `load` did not read what the file keeps for captioners, and `save` would drop it.
    """

    def __init__(self, paths: Sequence[str] = (), embeddings: Mapping[str, np.ndarray] | None = None) -> None:
        self.stamps: dict[str, str] = {}
        self.left_unread = False
        self._paths = list(paths)
        self._chunks = {name: [rows] for name, rows in (embeddings or {}).items()}
        self._merged = False
        self._exhaustive: dict[str, Any] | None = None  # faiss indices of the embeddings, built when first searched

    def __len__(self) -> int:
        return len(self.paths)

    def add(self, paths: Sequence[str], embeddings: Mapping[str, np.ndarray]) -> None:
        """Add clips with embeddings [n, D] by retriever, and what else is kept; a path that is there is replaced.

        Chunks are only collected here, and merged when the index is next read: growing it by a few clips at a time
        copies nothing.
        """
        if self._paths:
            self._chunks = {name: chunks for name, chunks in self._chunks.items() if name in embeddings}
            embeddings = {name: rows for name, rows in embeddings.items() if name in self._chunks}
        self._paths += paths
        for name, rows in embeddings.items():
            self._chunks.setdefault(name, []).append(rows)
        self._merged, self._exhaustive = False, None

    @property
    def paths(self) -> list[str]:
        """Return the paths of all clips, in the order in which they were last added."""
        self._merge()
        return self._paths

    @property
    def embeddings(self) -> dict[str, np.ndarray]:
        """Return the embeddings of all clips, [N, D] float32 by retriever."""
        self._merge()
        return {name: rows for name, (rows,) in self._chunks.items() if "/" not in name}

    @property
    def kept(self) -> dict[str, np.ndarray]:
        """Return what is kept for captioners, of all clips."""
        self._merge()
        return {name: rows for name, (rows,) in self._chunks.items() if "/" in name}

    def keeps(self, names: set[str]) -> bool:
        """Return whether these are kept of all clips, however few clips there are."""
        return not self._paths or names <= {*self._chunks}

    def _merge(self) -> None:
        """Join the chunks to one array per retriever, keeping the last of the rows with the same path."""
        if self._merged:
            return
        last = {path: row for row, path in enumerate(self._paths)}
        rows = sorted(last.values())
        for name, chunks in self._chunks.items():  # one retriever at a time, so that little is there twice
            self._chunks[name] = [np.concatenate(chunks)]
        if len(rows) < len(self._paths):
            self._chunks = {name: [embeddings[rows]] for name, (embeddings,) in self._chunks.items()}
        self._paths = [self._paths[row] for row in rows]
        self._merged = True

    def similarities(self, texts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the similarity [Q, N] of texts [Q, D] to all clips, by retriever."""
        return {name: negative_distances(text, self.embeddings[name]) for name, text in texts.items()}

    def nearest(
        self, text: Mapping[str, np.ndarray], weights: Mapping[str, float], top_k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the clips of the highest weighted sum of similarities without scoring all of them; exact.

        Each retriever's nearest clips are looked up by faiss and scored by all retrievers. No other clip can be
        better than the sum of what each list ends with (Fagin's threshold algorithm); where that does not suffice, the
        lists grow.

        Args:
            text: by retriever, [D].
            weights: by retriever, none below 0.

        Returns:
            Rows [top_k], best first, and their sums; fewer where there are fewer clips.
        """
        exhaustive, embeddings = self._exhaustive_indices(), self.embeddings
        depth = max(DEPTH, top_k)
        while True:
            depth = min(depth, len(self))
            found, bound = [], 0.0
            for name, weight in weights.items():
                squared, rows = exhaustive[name].search(text[name][None], depth)
                found.append(rows[0])
                bound -= weight * float(np.sqrt(max(squared[0, -1], 0.0)))
            rows = np.unique(np.concatenate(found))
            sums = sum(
                weight * negative_distances(text[name][None], embeddings[name][rows])[0]
                for name, weight in weights.items()
            )
            best = np.argsort(-sums, kind="stable")[:top_k]
            if depth == len(self) or sums[best[-1]] > bound + 1e-4 * abs(bound):  # beyond what rounding may do
                return rows[best], sums[best]
            depth *= 4

    def _exhaustive_indices(self) -> dict[str, Any]:
        """Return faiss's exhaustive index of each retriever's embeddings."""
        if self._exhaustive is None:
            self._exhaustive = {}
            for name, embeddings in self.embeddings.items():
                self._exhaustive[name] = faiss.IndexFlatL2(embeddings.shape[1])
                self._exhaustive[name].add(np.ascontiguousarray(embeddings))
        return self._exhaustive

    def save(self, directory: Path, provenance: dict[str, str], captioners: Mapping[str, str] | None = None) -> None:
        """Write the arrays to new files, then collection.json, which names them; the old files stay until then.

        Args:
            provenance: by retriever, the checksum of its weights.
            captioners: the same of those that something is kept for.
        """
        stem, arrays, codes = f"collection-{uuid.uuid4().hex[:12]}", self.embeddings | self.kept, None
        if CODES in arrays:
            codes, of_clips = f"{stem}.npy", arrays.pop(CODES)
            arrays[FRAMES] = np.array([len(one) for one in of_clips])
            with atomic_write(directory / codes) as partial, partial.open("wb") as opened:
                np.save(opened, np.concatenate(of_clips))
        file = directory / f"{stem}.safetensors"
        with atomic_write(file) as partial:
            save_file(arrays, partial)
        record = IndexRecord(
            format=FORMAT,
            retrievers=provenance,
            embeddings=file.name,
            paths=self.paths,
            stamps=[self.stamps.get(path, "") for path in self.paths],
            captioners=dict(captioners or {}) if self.kept else {},
            codes=codes,
        )
        # what an index without captioners has is what earlier versions read
        write_json(directory / RECORD, record.model_dump(exclude_defaults=True))
        for other in directory.glob("collection-*"):
            if other.name not in (file.name, codes):
                other.unlink()

    @classmethod
    def load(
        cls, directory: Path, provenance: dict[str, str], captioners: Mapping[str, str] | None = None
    ) -> AudioIndex:
        """Read what `save` wrote.

        Args:
            provenance: as of `save`, of the weights that texts will be embedded with.
            captioners: the same of captioners; where there are none, nothing is read of what is kept for them.

        Raises:
            CheckpointError: if a file is missing or damaged, the two do not belong together, or other weights made it.
        """
        path = directory / RECORD
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; expected an index that was saved")
        again = "index the files again"
        record = parse_record(IndexRecord, path.read_bytes(), path, again, FORMAT)
        made, asked = record.retrievers, provenance
        if record.captioners and captioners:
            made, asked = made | record.captioners, {**asked, **captioners}
        if made != asked:
            differing = sorted(name for name in {*made, *asked} if made.get(name) != asked.get(name))
            raise CheckpointError(f"{path}: made with other weights of {', '.join(differing)}; {again}")
        file = directory / record.embeddings
        for name in (record.embeddings, record.codes):
            if name and not (directory / name).is_file():
                raise CheckpointError(f"{path}: {name} is not beside it; {again}")
        try:
            arrays = load_file(file)
            if record.codes:
                arrays[CODES] = _codes(np.load(directory / record.codes, mmap_mode="r"), arrays.pop(FRAMES))
        except (SafetensorError, ValueError, KeyError) as error:
            raise CheckpointError(f"{file}: damaged ({error}); {again}") from error
        rows = {name: len(vectors) for name, vectors in arrays.items()}
        if {name for name in rows if "/" not in name} != {*provenance} or {*rows.values()} - {len(record.paths)}:
            raise CheckpointError(f"{path}: {len(record.paths)} paths, but embeddings {rows} beside it; {again}")
        index = cls(record.paths, {name: array for name, array in arrays.items() if captioners or "/" not in name})
        index.stamps = dict(zip(record.paths, record.stamps))
        index.left_unread = bool(record.captioners) and not captioners
        return index


def _codes(flat: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return the codes of each clip, of those of all clips one after another, which stay on disk until read."""
    if frames.sum() != len(flat):
        raise ValueError(f"{len(flat)} frames of codes, expected {frames.sum()}")
    return ragged(np.split(flat, np.cumsum(frames)[:-1]))
