"""Search in an index of many windows: approximate candidates and their exact fusion, against comparing with all.

    python benchmarks/index.py --windows 1000000

The vectors are synthetic and have structure, without which no approximate search could work: clusters, the square root
of the windows in number, in 32 dimensions that all retrievers see by a random projection of their own, with noise in
all dimensions. Queries lie near clusters, by more noise, and aside of all windows by one offset, as texts lie aside of
audio. They are fused at zero mean and unit deviation.

All on one core. The baselines have all vectors in memory as float32, in which they were loaded before:

- `numpy`: the distance to all vectors by matrix products and precomputed norms, fused, the best 10 by a partial sort.
- `faiss flat`: faiss's exhaustive search (`knn`) for the candidates of each retriever; their fusion is not counted.
- `exact`: this project's own exact search, on the same memory-mapped float16 vectors as ours.

Recall is that of ours against numpy's exact ranking of the float32 vectors, on queries that were not used to choose how
many clusters are looked into. At a million windows it takes 7 GB of disk, 10 GiB of memory, and half an hour or so.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before numpy is loaded

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import torch
from claims import Claims, claim, in_turns, parser, peak_memory, show

from models.ensemble.index import AudioIndex
from models.ensemble.index_search import DEPTHS, RECALL, RECALLED, IndexSearch
from models.ensemble.retrieval_fusion import RetrievalFusion, fuse

LATENT, NOISE, QUERY_NOISE, OFFSET = 32, 0.3, 0.6, 0.5
BLOCK = 50_000
RETRIEVERS = ("bge", "bert", "roberta")
FUSION = RetrievalFusion(weights=dict.fromkeys(RETRIEVERS, 1 / 3), normalisation="z")
TARGET = 20.0
Vectors = dict[str, np.ndarray]  # [N, D] by retriever


@dataclass(frozen=True)
class Sounds:
    """Clusters, and what each retriever makes of a point."""

    centres: np.ndarray  # [clusters, LATENT]
    projections: Vectors  # [LATENT, D]

    @classmethod
    def of(cls, windows: int, width: int) -> Sounds:
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(int(windows**0.5), LATENT)).astype(np.float32)
        return cls(centres, {name: rng.normal(size=(LATENT, width)).astype(np.float32) for name in RETRIEVERS})

    def points(self, number: int, seed: int, noise: float, offset: float = 0.0) -> Vectors:
        """Return vectors of unit length near clusters."""
        rng = np.random.default_rng(seed)
        latent = self.centres[rng.integers(len(self.centres), size=number)]
        latent = latent + noise * rng.standard_normal(latent.shape, np.float32) + offset
        found = {}
        for name, projection in self.projections.items():
            seen = latent @ projection
            seen += 0.1 * LATENT**0.5 * rng.standard_normal(seen.shape, np.float32)
            found[name] = seen / np.linalg.norm(seen, axis=1, keepdims=True)
        return found

    def windows(self, number: int) -> Iterator[tuple[int, Vectors]]:
        for at in range(0, number, BLOCK):
            yield at, self.points(min(BLOCK, number - at), 1 + at, NOISE)


def one(queries: Vectors, row: int) -> Vectors:
    return {name: rows[[row]] for name, rows in queries.items()}


@dataclass(frozen=True)
class Exhaustive:
    """What comparing queries with all float32 vectors takes, in seconds a query, and what it finds."""

    numpy_s: float
    faiss_s: float
    best: np.ndarray  # [Q, 10]


def compare_with_all(sounds: Sounds, windows: int, queries: Vectors) -> Exhaustive:
    """Search exhaustively, with one retriever's vectors in memory at a time."""
    number = len(queries[RETRIEVERS[0]])
    similarities = {name: np.empty((number, windows), np.float32) for name in RETRIEVERS}
    numpy_s = faiss_s = 0.0
    for name, asked in queries.items():
        vectors = np.empty((windows, asked.shape[1]), np.float32)
        for at, rows in sounds.windows(windows):
            vectors[at : at + len(rows[name])] = rows[name]
        squares = np.einsum("nd,nd->n", vectors, vectors)
        taken: list[float] = []
        for row, query in enumerate(asked):
            start = time.perf_counter()
            squared = squares - 2 * (vectors @ query) + query @ query
            np.negative(np.sqrt(np.maximum(squared, 1e-8, out=squared), out=squared), out=similarities[name][row])
            taken.append(time.perf_counter() - start)
        numpy_s += statistics.median(taken)
        faiss_s += in_turns([partial(faiss.knn, asked[:1], vectors, DEPTHS[0] // 3)], 5)[0]
        del vectors
    taken, best = [], []
    for row in range(number):
        start = time.perf_counter()
        fused = fuse([similarities[name][[row]] for name in RETRIEVERS], np.full(3, 1 / 3), "z")[0]
        some = np.argpartition(-fused, RECALLED)[:RECALLED]
        best.append(some[np.argsort(-fused[some])])
        taken.append(time.perf_counter() - start)
    return Exhaustive(numpy_s + statistics.median(taken), faiss_s, np.array(best))


def claims(windows: int, width: int, number: int, folder: Path) -> Claims:
    """Build an index, search in it, and compare."""
    sounds = Sounds.of(windows, width)
    started = time.perf_counter()
    index = AudioIndex()
    with peak_memory() as peak:
        for at, rows in sounds.windows(windows):
            index.add([f"{at + row}.wav" for row in range(len(rows[RETRIEVERS[0]]))], rows)
            index.save(folder, {})
        written_s = time.perf_counter() - started
        started = time.perf_counter()
        search = IndexSearch(index, FUSION)
        record = search.make_lists(folder, sounds.points(number, -1 % 2**32, QUERY_NOISE, OFFSET))
        lists_s = time.perf_counter() - started
    disk = sum(file.stat().st_size for file in folder.iterdir()) / 1e9
    print(
        f"{windows} windows, {len(RETRIEVERS)} retrievers of {width} dimensions: {disk:.1f} GB on disk; "
        f"{peak['RssAnon'] / 2**20:.1f} GiB of memory to build; {record.probes} clusters looked "
        f"into, {record.depth} candidates, recall@{RECALLED} {record.recall:.4f} when made"
    )
    queries = sounds.points(number, -2 % 2**32, QUERY_NOISE, OFFSET)
    exhaustive = compare_with_all(sounds, windows, queries)
    found = [search.nearest(one(queries, row), RECALLED).rows for row in range(number)]
    recall = np.mean([len(np.intersect1d(*pair)) / RECALLED for pair in zip(found, exhaustive.best, strict=True)])
    exact = IndexSearch(index, FUSION)
    asked = [one(queries, row) for row in range(number)]
    turns = iter(range(10**9))
    ours_s = in_turns([lambda: search.nearest(asked[next(turns) % number], RECALLED)], 50)[0]
    exact_s = in_turns([lambda: exact.nearest(asked[0], RECALLED)], 3)[0]
    return {
        "index_query_numpy": claim(ours_s, exhaustive.numpy_s, TARGET, "s", less=True),
        "index_query_faiss_flat": claim(ours_s, exhaustive.faiss_s, TARGET, "s", less=True),
        "index_query_exact": claim(ours_s, exact_s, TARGET, "s", less=True),
        "index_recall@10": claim(float(recall), RECALL, 1.0, "recall@10"),
        "index_lists": claim(lists_s, written_s, None, "s (baseline: making and writing the vectors)", less=True),
    }


def main() -> None:
    """Measure, and print what was found."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    arguments = parser(__doc__)
    arguments.add_argument("--windows", type=int, default=100_000)
    arguments.add_argument("--width", type=int, default=1024, help="dimensions of each retriever's vectors")
    arguments.add_argument("--queries", type=int, default=100, help="to choose clusters by, and as many to measure")
    arguments.add_argument("--folder", type=Path, help="to keep the index in meanwhile, in a temporary one")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        show(claims(options.windows, options.width, options.queries, Path(folder)))


if __name__ == "__main__":
    main()
