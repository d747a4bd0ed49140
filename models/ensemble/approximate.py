"""Find the candidates of a query in a large index without comparing it with all rows, by faiss's inverted lists.

Each retriever's rows are reduced to their first principal components, clustered (k-means), and kept by cluster with a
byte for each component. A query looks into its nearest clusters alone. How many is chosen when the lists are made, by
the recall of exact search that they reach.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from pydantic import BaseModel, ConfigDict

from ..files import CheckpointError, atomic_write, write_json
from ..records import parse_record, read_with_files
from .index import AudioIndex
from .index_record import AGAIN

FORMAT = 1
RECORD = "lists.json"
TRAINED_ON = 64  # rows for each cluster
DIMENSIONS = 128  # principal components at most, and bytes, of a row and retriever
SAMPLE = 8192  # rows whose similarities stand for those of all where they are normalised
UNLISTED = 20_000  # rows that were added since, which are all compared, before the lists are made again
RETRAINED = 4  # growth from which on the clusters are sought anew


class ListsRecord(BaseModel):
    """lists.json: what the lists of an index hold, and how well they find it."""

    model_config = ConfigDict(extra="forbid")
    format: int
    of: str  # the file of the rows' numbers, which is another one when rows have other numbers
    rows: int  # those before are in the lists
    trained_rows: int  # rows there were when the clusters were sought
    probes: int  # clusters that are looked into
    depth: int  # candidates, shared among the retrievers
    recall: float  # share of the 10 best of exact search that are found, mean over `queries`
    queries: int
    files: dict[str, str]  # by retriever


class InvertedLists:
    """The lists of an index's rows, by retriever."""

    def __init__(self, record: ListsRecord, indices: Mapping[str, Any]) -> None:
        self.record, self._indices = record, indices
        self._sample: dict[str, np.ndarray] = {}
        self._squares: dict[str, np.ndarray] = {}

    def candidates(self, query: Mapping[str, np.ndarray], allowed: np.ndarray, depth: int, probes: int) -> np.ndarray:
        """Return the numbers of the rows that may be nearest to a query, sorted: those not in the lists among them.

        Args:
            query: [D] by retriever.
            allowed: of all rows, whether they may be returned, [rows].
            depth: rows that are looked up, each retriever its share.
            probes: clusters that are looked into.
        """
        found = [self.record.rows + np.flatnonzero(allowed[self.record.rows :])]
        library: Any = faiss  # its types are those of C++, not of what it has for Python
        selected = library.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        look_into = library.SearchParametersIVF(nprobe=probes, sel=selected)
        for name, vector in query.items():
            index, search = self._indices[name], look_into
            if isinstance(index, faiss.IndexPreTransform):
                search = library.SearchParametersPreTransform(index_params=look_into)
            _, (rows,) = index.search(vector[None], -(-depth // len(query)), params=search)
            found.append(rows[rows >= 0])
        return np.unique(np.concatenate(found))

    def to_sample(self, index: AudioIndex, vectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the similarity [Q, n] of vectors [Q, D] to a sample of the rows, which is taken once, by retriever.

        It is less exact than that to rows that are ranked: it only serves to normalise theirs.
        """
        if not self._sample:
            rows = index.sample(SAMPLE)
            self._sample = {name: index.vectors(name, rows) for name in index.retrievers()}
            self._squares = {name: np.einsum("nd,nd->n", sample, sample) for name, sample in self._sample.items()}
        found = {}
        for name, asked in vectors.items():
            squared = self._squares[name] - 2 * (asked @ self._sample[name].T) + (asked**2).sum(1, keepdims=True)
            found[name] = -np.sqrt(np.maximum(squared, 1e-8))
        return found

    def choices_of_probes(self) -> list[int]:
        """Return numbers of clusters to try, up to all of them."""
        clusters = max(int(faiss.extract_index_ivf(index).nlist) for index in self._indices.values())
        return [4 * 2**step for step in range(clusters.bit_length()) if 2 * 2**step < clusters] or [clusters]

    def suffice(self, index: AudioIndex) -> bool:
        """Return whether the lists need not be made again yet."""
        return len(index.numbers) - self.record.rows <= UNLISTED

    @classmethod
    def make(cls, index: AudioIndex, directory: Path) -> InvertedLists:
        """Make the lists of all rows of an index on the disk, or add rows to those that are there; not saved yet.

        Memory holds a sample, and the compressed rows of one retriever.

        Args:
            directory: of the index.
        """
        before, rows, files = cls.load(directory, index), len(index.numbers), {}
        if before and rows > RETRAINED * before.record.trained_rows:
            before = None
        stem = f"lists-{uuid.uuid4().hex[:12]}"
        for at, name in enumerate(index.retrievers()):
            if before:
                made, start = faiss.read_index(str(directory / before.record.files[name])), before.record.rows
            else:
                made, start = _trained(index, name), 0
            for block in index.blocks(name, start):
                made.add(block)
            files[name] = f"{stem}-{at}.faiss"
            with atomic_write(directory / files[name]) as partial:
                faiss.write_index(made, str(partial))
            del made
        record = ListsRecord(
            format=FORMAT,
            of=index.identity,
            rows=rows,
            trained_rows=before.record.trained_rows if before else rows,
            probes=1,
            depth=0,
            recall=0.0,
            queries=0,
            files=files,
        )
        return cls(record, _read(record, directory))

    def save(self, directory: Path) -> None:
        """Put the lists in use, and remove earlier ones."""
        write_json(directory / RECORD, self.record.model_dump())
        for other in directory.glob("lists-*"):
            if other.name not in self.record.files.values():
                other.unlink()

    @classmethod
    def load(cls, directory: Path, index: AudioIndex) -> InvertedLists | None:
        """Read the lists of an index, if it has some.

        Raises:
            CheckpointError: if they are damaged.
        """
        path = directory / RECORD
        if not path.is_file():
            return None
        return read_with_files(path, lambda content: cls._of_record(content, path, index))

    @classmethod
    def _of_record(cls, content: bytes, path: Path, index: AudioIndex) -> InvertedLists | None:
        record = parse_record(ListsRecord, content, path, f"remove it, and {AGAIN}", FORMAT)
        if record.of != index.identity or record.rows > len(index.numbers) or {*record.files} != {*index.retrievers()}:
            return None  # the index was written anew since
        return cls(record, _read(record, path.parent))


def _read(record: ListsRecord, directory: Path) -> dict[str, Any]:
    """Return faiss's index of each retriever, whose lists stay on the disk."""
    try:
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        return {name: faiss.read_index(str(directory / file), flags) for name, file in record.files.items()}
    except RuntimeError as error:
        raise CheckpointError(
            f"{directory}: {', '.join(record.files.values())}: missing or damaged; remove {RECORD}, and {AGAIN}"
        ) from error


def _trained(index: AudioIndex, name: str) -> Any:
    """Return faiss's index with clusters for a retriever's rows, and none of these in it."""
    number = len(index)
    clusters = max(1, min(int(np.sqrt(number)), number // TRAINED_ON))
    sample = index.vectors(name, index.sample(clusters * TRAINED_ON))
    reduced = f"PCA{DIMENSIONS}," if sample.shape[1] > DIMENSIONS else ""
    made = faiss.index_factory(sample.shape[1], f"{reduced}IVF{clusters},SQ8")
    made.train(sample)
    return made
