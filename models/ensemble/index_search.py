"""Rank the rows of an index for a query: all of a small index, the candidates of inverted lists of a large one.

The ranking is by the fused similarity of all retrievers. A text for what is not wanted lowers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from .approximate import UNLISTED, InvertedLists, ListsRecord
from .index import AudioIndex
from .retrieval_fusion import RetrievalFusion
from .score_arrays import safe_divide

DEPTHS = (1000, 2000, 4000)  # candidates, of which as few as reach the recall are ranked by all retrievers
PER_RESULT = 10  # candidates at least for each row asked for
RECALLED = 10  # best rows of exact search that approximate search is to find
RECALL = 0.99  # share of them
CELLS = 2**26  # similarities of exact search that are in memory at a time
MARGIN = 0.5  # of what is not wanted; chosen on the validation clips of the demo (benchmarks/exclude.py)


@dataclass(frozen=True)
class Match:
    """A file, or a window of one, that a search found."""

    path: str
    similarity: float
    start_s: float | None = None  # None where the whole file was indexed
    end_s: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Rows of an index by their numbers, and their values, [n]."""

    rows: np.ndarray
    values: np.ndarray

    def allowed(self, rows: np.ndarray) -> Ranking:
        """Return those of the rows that are allowed, given for all numbers."""
        kept = rows[self.rows]
        return Ranking(self.rows[kept], self.values[kept])

    def best(self, top_k: int, files: np.ndarray | None) -> Ranking:
        """Return the rows of the highest values, the highest first.

        Args:
            files: the number of each row's file, where each file counts once, by its best row.
        """
        order = np.argsort(-self.values, kind="stable")
        if files is not None:
            _, first = np.unique(files[self.rows[order]], return_index=True)
            order = order[np.sort(first)]
        return Ranking(self.rows[order[:top_k]], self.values[order[:top_k]])


def less_unwanted(fused: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return the similarity [n] of a query, less that of what is not wanted where there is such a text.

    Both are taken at zero mean and unit deviation over the index. A row counts as unwanted by as much as it is more
    similar to the unwanted text than the mean row is.

    Args:
        fused: [1 or 2, n], of the query and of what is not wanted.
        among: [1 or 2, m], the same of the rows of the index, or of a sample.
    """
    if len(fused) == 1:
        alone: np.ndarray = fused[0]
        return alone
    wanted, unwanted = safe_divide(fused - among.mean(1, keepdims=True), among.std(1, keepdims=True), fused)
    penalised: np.ndarray = wanted - MARGIN * np.maximum(unwanted, 0)
    return penalised


@dataclass
class IndexSearch:
    """Search in an index for embeddings [1, D] of a query by retriever, or [2, D] with those of what is not wanted."""

    index: AudioIndex
    fusion: RetrievalFusion
    lists: InvertedLists | None = None

    def all(self, vectors: Mapping[str, np.ndarray]) -> Ranking:
        """Return all rows of the index, in its order."""
        fused = self.fusion.join(self.index.similarities(vectors))
        return Ranking(self.index.rows, less_unwanted(fused, fused))

    def nearest(
        self,
        vectors: Mapping[str, np.ndarray],
        top_k: int,
        allowed: np.ndarray | None = None,
        files: np.ndarray | None = None,
    ) -> Ranking:
        """Return the best rows, or the best row of each file.

        Args:
            allowed: of all rows by number, whether they count.
            files: as of `Ranking.best`.
        """
        if allowed is None:
            allowed = np.zeros(len(self.index.numbers), bool)
            allowed[self.index.rows] = True
        number = int(allowed.sum())
        if self.lists is None or self.fusion.normalisation not in ("none", "z"):
            return self.all(vectors).allowed(allowed).best(top_k, files)
        lists, query = self.lists, {name: rows[0] for name, rows in vectors.items()}
        depth = max(lists.record.depth, PER_RESULT * top_k * len(query))
        while number > UNLISTED and depth < number:
            candidates = lists.candidates(query, allowed, depth, lists.record.probes)
            found = self._among(vectors, candidates).best(top_k, files)
            if len(found.rows) < top_k and files is not None:
                top_k = min(top_k, len(np.unique(files[allowed])))
            if len(found.rows) == top_k:
                return found
            depth *= 4
        return self._among(vectors, np.flatnonzero(allowed)).best(top_k, files)

    def _among(self, vectors: Mapping[str, np.ndarray], rows: np.ndarray) -> Ranking:
        """Return some rows, whose similarities are normalised as if they were among all of the index."""
        assert self.lists is not None
        sampled = self.lists.to_sample(self.index, vectors)
        found = self.fusion.join_among(self.index.similarities(vectors, rows), sampled)
        return Ranking(rows, less_unwanted(found, self.fusion.join_among(sampled, sampled)))

    def recall(self, queries: Mapping[str, np.ndarray], exact: np.ndarray) -> float:
        """Return the share of the best rows of exact search that are found, mean over queries [Q, D] by retriever.

        Args:
            exact: from `exact_bests`.
        """
        found = 0.0
        for row, best in enumerate(exact):
            rows = self.nearest(_query(queries, row, row + 1), RECALLED).rows
            found += len(np.intersect1d(rows, best)) / len(best)
        return found / len(exact)

    def exact_bests(self, queries: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the best rows of exact search for queries [Q, D] by retriever, [Q, 10]."""
        number = len(next(iter(queries.values())))
        at_a_time, found = max(1, CELLS // (len(self.index) * len(queries))), []
        for at in range(0, number, at_a_time):
            fused = self.fusion.join(self.index.similarities(_query(queries, at, at + at_a_time)))
            found += [Ranking(self.index.rows, row).best(RECALLED, None).rows for row in fused]
        return np.array(found)

    def make_lists(self, directory: Path, queries: Mapping[str, np.ndarray], target: float = RECALL) -> ListsRecord:
        """Make the inverted lists of an index that is on the disk, and look into as few as reach a recall.

        Args:
            directory: of the index.
            queries: [Q, D] by retriever, like those that will be asked.
            target: recall of the 10 best of exact search. Where even all clusters do not reach it, the record says so.
        """
        self.lists = InvertedLists.make(self.index, directory)
        exact = self.exact_bests(queries)
        recall = 0.0
        for depth, probes in product(DEPTHS, self.lists.choices_of_probes()):
            self.lists.record.probes, self.lists.record.depth = probes, depth
            if (recall := self.recall(queries, exact)) >= target:
                break
        self.lists.record.recall, self.lists.record.queries = recall, len(exact)
        self.lists.save(directory)
        return self.lists.record


def _query(queries: Mapping[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {name: rows[start:stop] for name, rows in queries.items()}
