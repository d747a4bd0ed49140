"""Stands in for parts of the library that are being built."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

from ..audio import load_audio
from ..ensemble.bundle import Caption, Ensemble
from ..ensemble.index import AudioIndex


class Block(NamedTuple):
    samples: np.ndarray
    rate: int


def audio_blocks(source: io.BytesIO, name: str, max_duration_s: float) -> Iterator[Block]:
    yield Block(load_audio(source, 16_000, max_duration_s, name=name)[:, None], 16_000)


@dataclass(frozen=True)
class TimedCaption:
    start_s: float
    end_s: float
    caption: Caption


@dataclass(frozen=True)
class Timeline:
    duration_s: float
    segments: list[TimedCaption]


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


def caption_windows(
    ensemble: Ensemble, content: bytes, seed: int | None, window_s: float, hop_s: float | None
) -> Timeline:
    rate = 16_000
    samples = load_audio(io.BytesIO(content), rate)
    hop_s, duration_s = hop_s or window_s, len(samples) / rate
    starts = np.arange(0, max(duration_s - window_s + hop_s, hop_s) - 1e-6, hop_s)
    pieces: Any = [(samples[int(s * rate) : int((s + window_s) * rate)], rate) for s in starts]
    captions = ensemble.caption(pieces, seed)
    return Timeline(
        duration_s, [TimedCaption(float(s), min(float(s) + window_s, duration_s), c) for s, c in zip(starts, captions)]
    )


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
