"""Draw the scenes of the built-in corpus: which sounds, with which attributes, in which relation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from corpora.soundscapes.scene import ATTRIBUTES, Event, Relation, Scene
from corpora.soundscapes.sounds import SOUNDS

# Share of clips that are near-twins of an earlier clip of their split, so that recognising the class is not enough.
_TWIN_SHARE = 0.3
_DURATION_S = {1: (4.0, 5.2), 2: (4.2, 6.2), 3: (5.4, 8.0)}
_SceneParts = tuple[tuple[Event, ...], Relation]


def scene_key(scene: Scene) -> tuple[str, tuple[Event, ...]]:
    """Return what a scene describes, without its seed: relation and events, in order only where order is heard."""
    return _key(scene.events, scene.relation)


def sample_scenes(sizes: dict[str, int], seed: int) -> dict[str, list[Scene]]:
    """Draw the scenes of all splits together.

    No scene description (`scene_key`) occurs twice, within a split or across splits, so a test clip is never another
    rendition of a training clip. The same sizes (in the same order) and seed give the same scenes.

    Args:
        sizes: number of clips of each split.
        seed: of everything, including the scenes' own seeds.
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
    """Return a function that deals the classes like cards, so that all occur about equally often."""
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
        # A caption could not distinguish two sounds of one class.
        if kind not in kinds:
            kinds.append(kind)
    relation: Relation = "alone" if wanted == 1 else "sequence" if rng.random() < 0.5 else "overlap"
    return tuple(_event(kind, rng) for kind in kinds), relation


def _event(kind: str, rng: np.random.Generator) -> Event:
    drawn = {name: str(rng.choice(ATTRIBUTES[name])) for name in SOUNDS[kind].attributes}
    return _with_fitting_pace(Event(kind, **drawn), rng)


def _with_fitting_pace(event: Event, rng: np.random.Generator) -> Event:
    """Make the pace fit the count: a single hit has none, several have one if it applies to the class."""
    if event.count == "one":
        return replace(event, pace=None)
    if event.pace is None and "pace" in SOUNDS[event.kind].attributes:
        return replace(event, pace=str(rng.choice(ATTRIBUTES["pace"])))
    return event


def _twin(scene: Scene, rng: np.random.Generator) -> _SceneParts:
    """Return the same classes in another order, or with one attribute of one event changed."""
    if scene.relation == "sequence" and rng.random() < 0.4:
        return scene.events[::-1], "sequence"
    place = int(rng.integers(len(scene.events)))
    event = scene.events[place]
    name = str(rng.choice([name for name in SOUNDS[event.kind].attributes if getattr(event, name) is not None]))
    other = str(rng.choice([value for value in ATTRIBUTES[name] if value != getattr(event, name)]))
    changed = _with_fitting_pace(replace(event, **{name: other}), rng)
    return (*scene.events[:place], changed, *scene.events[place + 1 :]), scene.relation
