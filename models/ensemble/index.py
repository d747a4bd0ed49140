"""A collection of clips to search in: paths and embeddings, in memory and on disk."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from safetensors.numpy import load_file, save_file

from ..files import CheckpointError, atomic_write, write_json
from ..retriever.model import negative_distances

FORMAT = 1
RECORD = "collection.json"
LARGE = 20_000  # clips from which on the nearest are looked up first, and only they are scored
DEPTH = 64  # of that look-up, a retriever; four times as many where they turn out too few


class Collection:
    """N clips, each with one embedding a retriever, as `Retriever.under_metric` gives them.

    `stamps` has of each path what its file was like when it was added, where that is known (`models.files.stamp`).
    """

    def __init__(self, paths: Sequence[str] = (), embeddings: Mapping[str, np.ndarray] | None = None) -> None:
        self.stamps: dict[str, str] = {}
        self._paths = list(paths)
        self._parts = {name: [rows] for name, rows in (embeddings or {}).items()}

    def __len__(self) -> int:
        return len(self.paths)

    def add(self, paths: Sequence[str], embeddings: Mapping[str, np.ndarray]) -> None:
        """Add clips with embeddings [n, D] by retriever; of a path that comes again, the last one counts."""
        self._paths += paths
        for name, rows in embeddings.items():
            self._parts.setdefault(name, []).append(rows)
        for made in ("_settled", "_look_up"):
            self.__dict__.pop(made, None)

    @property
    def paths(self) -> list[str]:
        """Of the clips, in the order of their (last) adding."""
        return self._settled[0]

    @property
    def embeddings(self) -> dict[str, np.ndarray]:
        """By retriever, [N, D] float32."""
        return self._settled[1]

    @cached_property
    def _settled(self) -> tuple[list[str], dict[str, np.ndarray]]:
        """Joined when looked at, not whenever a few clips are added."""
        last = {path: row for row, path in enumerate(self._paths)}
        rows = np.array(sorted(last.values()), int)
        joined = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        if len(rows) < len(self._paths):
            joined = {name: one[rows] for name, one in joined.items()}
        self._paths = [self._paths[row] for row in rows]
        self._parts = {name: [one] for name, one in joined.items()}
        return self._paths, joined

    def similarities(self, texts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """By retriever, [Q, N] from texts [Q, D], of all clips."""
        return {name: negative_distances(one, self.embeddings[name]) for name, one in texts.items()}

    def nearest(self, text: Mapping[str, np.ndarray], weights: Mapping[str, float], top_k: int
                ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """The clips of the highest weighted sum of similarities, without scoring all of them; exact.

        Each retriever's nearest clips are looked up by faiss and scored by all retrievers. No other clip can be
        better than the sum of what each list ends with (Fagin's threshold algorithm); where that does not suffice, the
        lists grow.

        Args:
            text: by retriever, [D].
            weights: by retriever, none below 0.

        Returns:
            Rows [top_k], best first, and their sums; fewer where there are fewer clips.
        """
        depth = max(DEPTH, top_k)
        while True:
            depth = min(depth, len(self))
            found, bound = [], 0.0
            for name, weight in weights.items():
                squared, rows = self._look_up[name].search(text[name][None], depth)
                found.append(rows[0])
                bound -= weight * float(np.sqrt(max(squared[0, -1], 0.0)))
            rows = np.unique(np.concatenate(found))
            sums = sum(weight * negative_distances(text[name][None], self.embeddings[name][rows])[0]
                       for name, weight in weights.items())  # fmt: skip
            best = np.argsort(-sums, kind="stable")[:top_k]
            if depth == len(self) or sums[best[-1]] > bound + 1e-4 * abs(bound):  # beyond what rounding may do
                return rows[best], sums[best]
            depth *= 4

    @cached_property
    def _look_up(self) -> dict[str, Any]:
        """faiss's exhaustive index of each retriever's embeddings."""
        indices = {}
        for name, rows in self.embeddings.items():
            indices[name] = faiss.IndexFlatL2(rows.shape[1])
            indices[name].add(np.ascontiguousarray(rows))
        return indices

    def save(self, directory: Path, provenance: dict[str, str]) -> None:
        """Write the embeddings to a file of their own name and collection.json, which names it; the old stay till then.

        Args:
            provenance: by retriever, the checksum of its weights.
        """
        file = directory / f"collection-{uuid.uuid4().hex[:12]}.safetensors"
        with atomic_write(file) as partial:
            save_file(self.embeddings, partial)
        stamps = [self.stamps.get(path, "") for path in self.paths]
        record = {"format": FORMAT, "retrievers": provenance, "embeddings": file.name, "paths": self.paths}
        write_json(directory / RECORD, record | {"stamps": stamps})
        for other in directory.glob("collection*.safetensors"):
            if other != file:
                other.unlink()

    @classmethod
    def load(cls, directory: Path, provenance: dict[str, str]) -> Collection:
        """Read what `save` wrote.

        Raises:
            CheckpointError: if a file is missing, the two do not belong together, or other weights made it.
        """
        path = directory / RECORD
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; expected a collection that was saved")
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("format") != FORMAT:
            raise CheckpointError(f"{path}: format {record.get('format')!r}, this version reads {FORMAT}")
        if record["retrievers"] != provenance:
            differing = sorted(n for n in {*record["retrievers"], *provenance}
                               if record["retrievers"].get(n) != provenance.get(n))  # fmt: skip
            raise CheckpointError(f"{path}: made with other weights of {', '.join(differing)}; index the files anew")
        file = directory / record.get("embeddings", "collection.safetensors")
        if not file.is_file():
            raise CheckpointError(f"{path}: {file.name} is not beside it; index the files anew")
        embeddings = load_file(file)
        rows = {name: len(one) for name, one in embeddings.items()}
        if set(rows) != set(provenance) or set(rows.values()) - {len(record["paths"])}:
            raise CheckpointError(f"{path}: {len(record['paths'])} paths, but embeddings {rows} beside it")
        collection = cls(record["paths"], embeddings)
        collection.stamps = dict(zip(record["paths"], record.get("stamps", [])))
        return collection
