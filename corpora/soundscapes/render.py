"""The built-in corpus: scenes of one to three synthetic sounds, sampled, rendered and written in Clotho's layout."""

from __future__ import annotations

import csv
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from scipy import signal

from corpora.soundscapes.events import SOUNDS, render_event
from corpora.soundscapes.grammar import CAPTIONS_PER_CLIP, describe
from corpora.soundscapes.scene import ATTRIBUTES, Event, Relation, Scene

__all__ = [
    "Event",
    "Scene",
    "render",
    "sample_scenes",
    "scene_key",
    "write_captions",
    "write_clip",
]

# A share of the clips are near-twins of an earlier clip of their split, so that to hear the class is not enough.
_TWIN_SHARE = 0.3
_DURATION_S = {1: (4.0, 5.2), 2: (4.2, 6.2), 3: (5.4, 8.0)}
_SceneParts = tuple[tuple[Event, ...], Relation]


def scene_key(scene: Scene) -> tuple[str, tuple[Event, ...]]:
    """What a scene is, whatever its seed: its relation and its events, in order only where order is heard."""
    return _key(scene.events, scene.relation)


def sample_scenes(sizes: dict[str, int], seed: int) -> dict[str, list[Scene]]:
    """Draw the scenes of all splits at once.

    No scene description (`scene_key`) occurs twice, neither in one split nor in two, so a test clip is never a training
    clip in another rendition. The same sizes (in the same order) and seed give the same scenes.

    Args:
        sizes: clips per split.
        seed: seed of everything, the scenes' own seeds included.
    """
    rng = np.random.default_rng(seed)
    draw_kind = _deck(rng)
    seen: set[tuple[str, tuple[Event, ...]]] = set()
    splits: dict[str, list[Scene]] = {}
    for split, size in sizes.items():
        scenes: list[Scene] = []
        while len(scenes) < size:
            twin = bool(scenes) and rng.random() < _TWIN_SHARE
            events, relation = _twin(scenes[rng.integers(len(scenes))], rng) if twin else _fresh(draw_kind, rng)
            if _key(events, relation) in seen:
                continue
            seen.add(_key(events, relation))
            duration = round(float(rng.uniform(*_DURATION_S[len(events)])), 2)
            clip_seed = int(rng.integers(2**31))
            scenes.append(Scene(f"{split}-{len(scenes):05d}", split, clip_seed, duration, events, relation))
        splits[split] = scenes
    return splits


def _key(events: tuple[Event, ...], relation: Relation) -> tuple[str, tuple[Event, ...]]:
    return relation, events if relation == "sequence" else tuple(sorted(events, key=repr))


def _deck(rng: np.random.Generator) -> Callable[[], str]:
    """Deal the classes like cards, so that each comes about as often as every other."""
    cards: list[str] = []

    def draw() -> str:
        if not cards:
            cards.extend(rng.permutation(list(SOUNDS)).tolist())
        return cards.pop()

    return draw


def _fresh(draw_kind: Callable[[], str], rng: np.random.Generator) -> _SceneParts:
    wanted = int(rng.choice((1, 2, 3), p=(0.25, 0.5, 0.25)))
    kinds: list[str] = []
    while len(kinds) < wanted:
        kind = draw_kind()
        # Two sounds of one class in a clip cannot be told apart in a caption.
        if kind not in kinds:
            kinds.append(kind)
    relation: Relation = "alone" if wanted == 1 else "sequence" if rng.random() < 0.5 else "overlap"
    return tuple(_event(kind, rng) for kind in kinds), relation


def _event(kind: str, rng: np.random.Generator) -> Event:
    drawn = {name: str(rng.choice(ATTRIBUTES[name])) for name in SOUNDS[kind].attributes}
    return _settled(Event(kind, **drawn), rng)


def _settled(event: Event, rng: np.random.Generator) -> Event:
    """One hit has no pace; several do, where the class has one."""
    if event.count == "one":
        return replace(event, pace=None)
    if event.pace is None and "pace" in SOUNDS[event.kind].attributes:
        return replace(event, pace=str(rng.choice(ATTRIBUTES["pace"])))
    return event


def _twin(scene: Scene, rng: np.random.Generator) -> _SceneParts:
    """The same classes in another order, or with one attribute of one event changed."""
    if scene.relation == "sequence" and rng.random() < 0.4:
        return scene.events[::-1], "sequence"
    place = int(rng.integers(len(scene.events)))
    event = scene.events[place]
    name = str(rng.choice([name for name in SOUNDS[event.kind].attributes if getattr(event, name) is not None]))
    other = str(rng.choice([value for value in ATTRIBUTES[name] if value != getattr(event, name)]))
    changed = _settled(replace(event, **{name: other}), rng)
    return (*scene.events[:place], changed, *scene.events[place + 1 :]), scene.relation


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
    """Start and length in seconds of every event."""
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
    """Hiss of a random colour, 46 to 58 dB below full scale, coming and going slowly."""
    colour = signal.butter(1, rng.uniform(300, 0.4 * sample_rate), "lowpass", fs=sample_rate, output="sos")
    hiss = signal.sosfilt(colour, rng.standard_normal(samples))
    drift = np.interp(np.linspace(0, 4, samples), np.arange(5), rng.uniform(0.6, 1.0, 5))
    return hiss * drift * (10 ** (rng.uniform(-58.0, -46.0) / 20) / np.sqrt(np.mean(hiss**2)))


def write_clip(scene: Scene, root: str | Path, sample_rate: int) -> Path:
    """Render a scene to `<root>/<split>/<clip_id>.flac` (16 bit), over what is there; return the path.

    A reader sees the whole file or none: it is written beside its place and then moved there.
    """
    path = Path(root) / scene.split / f"{scene.clip_id}.flac"
    audio = render(scene, sample_rate)
    _replace(path, lambda part: soundfile.write(part, audio, sample_rate, format="FLAC", subtype="PCM_16"))
    return path


def write_captions(root: str | Path, split: str, scenes: Iterable[Scene]) -> Path:
    """Write `<root>/<split>.csv` with Clotho's columns (file_name, caption_1 .. caption_5) atomically."""
    path = Path(root) / f"{split}.csv"
    header = ["file_name", *(f"caption_{number}" for number in range(1, CAPTIONS_PER_CLIP + 1))]
    rows = [[f"{scene.clip_id}.flac", *describe(scene)] for scene in scenes]

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])

    _replace(path, write)
    return path


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write to a file of its own beside `path`, then move it there, leaving nothing behind on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
