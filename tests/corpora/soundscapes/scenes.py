"""Sizes of the splits that the tests sample, and a scene of given events."""

from __future__ import annotations

from corpora.soundscapes.scene import Event, Relation, Scene

SIZES = {"train": 300, "validation": 60, "test": 60}


def scene_of(events: tuple[Event, ...], relation: Relation = "alone", seed: int = 3, duration_s: float = 4.0) -> Scene:
    return Scene("train-00000", "train", seed, duration_s, events, relation)
