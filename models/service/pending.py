"""Stands in for parts of the library that are being built."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePath

from ..ensemble.bundle import Ensemble
from ..ensemble.index import AudioIndex


@dataclass(frozen=True)
class Match:
    path: str
    similarity: float
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class Where:
    name: str | None = None
    folder: str | None = None
    min_duration_s: float | None = None
    max_duration_s: float | None = None


def _filtered(found: list[tuple[str, float]], top_k: int, where: Where | None) -> list[Match]:
    where = where or Where()
    kept = [
        Match(path, value)
        for path, value in found
        if (not where.name or fnmatch(PurePath(path).name, where.name))
        and (not where.folder or where.folder in map(str, PurePath(path).parents))
    ]
    return kept[:top_k]


def retrieve(ensemble: Ensemble, query: str, top_k: int, exclude: str | None, where: Where | None) -> list[Match]:
    return _filtered(ensemble.retrieve(query, len(ensemble.audio_index)), top_k, where)


def similar(ensemble: Ensemble, content: bytes, top_k: int, where: Where | None) -> list[Match]:
    return _filtered(ensemble.similar(content, len(ensemble.audio_index)), top_k, where)


def remove(ensemble: Ensemble, paths: list[str]) -> None:
    index = ensemble.audio_index
    rows = [row for row, path in enumerate(index.paths) if path not in paths]
    arrays = index.embeddings | index.kept
    kept = AudioIndex([index.paths[row] for row in rows], {name: values[rows] for name, values in arrays.items()})
    kept.stamps = {path: mark for path, mark in index.stamps.items() if path not in paths}
    ensemble.audio_index = kept
