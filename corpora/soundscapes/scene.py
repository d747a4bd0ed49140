"""The plan of a clip of the built-in corpus: events with attributes, in a temporal relation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Relation = Literal["alone", "sequence", "overlap"]

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "distance": ("near", "far"),
    "pace": ("fast", "slow"),
    "pitch": ("high", "low"),
    "loudness": ("loud", "soft"),
    "count": ("one", "two", "three", "several"),
}


@dataclass(frozen=True)
class Event:
    """One sound: its class and its attributes (None where an attribute does not apply)."""

    kind: str
    distance: str | None = None
    pace: str | None = None
    pitch: str | None = None
    loudness: str | None = None
    count: str | None = None


@dataclass(frozen=True)
class Scene:
    """One clip before it is rendered: `duration_s` seconds of one to three events in a temporal relation."""

    clip_id: str
    split: str
    seed: int
    duration_s: float
    events: tuple[Event, ...]
    relation: Relation
