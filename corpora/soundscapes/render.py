"""Render scenes, and write them in Clotho's layout."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from scipy import signal

from corpora.soundscapes.events import render_event
from corpora.soundscapes.grammar import CAPTIONS_PER_CLIP, describe
from corpora.soundscapes.scene import Scene
from models.files import atomic_write, write_bytes


def render(scene: Scene, sample_rate: int = 16000) -> npt.NDArray[np.float32]:
    """Render a scene; the same scene and rate give the same samples.

    Returns:
        Mono samples in [-1, 1], [round(duration_s * sample_rate)], float32, over a faint noise floor.
    """
    rng = np.random.default_rng([scene.seed, 0])
    samples = round(scene.duration_s * sample_rate)
    mix = _noise_floor(samples, sample_rate, rng)
    for event, (start_s, length_s) in zip(scene.events, _slots(scene, rng), strict=True):
        first = round(start_s * sample_rate)
        piece = render_event(event, length_s, sample_rate, rng)[: samples - first]
        mix[first : first + len(piece)] += piece
    mix *= 10 ** (rng.uniform(-4.0, 2.0) / 20)
    return (mix / max(1.0, float(np.abs(mix).max()) / 0.98)).astype(np.float32)


def _slots(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return start and length in seconds of every event."""
    if scene.relation != "sequence":
        starts = rng.uniform(0.0, 0.12, len(scene.events)) * scene.duration_s
        return [(float(start), scene.duration_s - float(start)) for start in starts]
    # Several hits need more room than one.
    needs = {"one": 0.8, "two": 1.0, "three": 1.2, "several": 1.6, None: 1.0}
    shares = np.array([needs[event.count] * rng.uniform(0.9, 1.1) for event in scene.events])
    lengths = scene.duration_s * shares / shares.sum()
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    return [(float(start), float(length) * rng.uniform(0.93, 1.0)) for start, length in zip(starts, lengths)]


def _noise_floor(samples: int, sample_rate: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return hiss of a random colour, 46 to 58 dB below full scale, whose level changes slowly."""
    colour = signal.butter(1, rng.uniform(300, 0.4 * sample_rate), "lowpass", fs=sample_rate, output="sos")
    hiss = signal.sosfilt(colour, rng.standard_normal(samples))
    drift = np.interp(np.linspace(0, 4, samples), np.arange(5), rng.uniform(0.6, 1.0, 5))
    return hiss * drift * (10 ** (rng.uniform(-58.0, -46.0) / 20) / np.sqrt(np.mean(hiss**2)))


def write_clip(scene: Scene, root: str | Path, sample_rate: int) -> Path:
    """Render a scene to `<root>/<split>/<clip_id>.flac` (16 bit), atomically, and return the path."""
    path = Path(root) / scene.split / f"{scene.clip_id}.flac"
    flac = io.BytesIO()  # the library itself would say of a full disk that there was an error
    soundfile.write(flac, render(scene, sample_rate), sample_rate, format="FLAC", subtype="PCM_16")
    write_bytes(path, flac.getvalue())
    return path


def write_captions(root: str | Path, split: str, scenes: Iterable[Scene]) -> Path:
    """Write `<root>/<split>.csv` with Clotho's columns (file_name, caption_1 .. caption_5), atomically."""
    path = Path(root) / f"{split}.csv"
    header = ["file_name", *(f"caption_{number}" for number in range(1, CAPTIONS_PER_CLIP + 1))]
    rows = [[f"{scene.clip_id}.flac", *describe(scene)] for scene in scenes]
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path
