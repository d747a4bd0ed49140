"""The scenes of the built-in corpus: even, distinct, and the same for the same seed."""

from __future__ import annotations

import numpy as np

from corpora.soundscapes.sampling import sample_scenes, scene_key
from corpora.soundscapes.scene import ATTRIBUTES, Event, Scene
from corpora.soundscapes.sounds import SOUNDS
from tests.corpora.soundscapes.scenes import SIZES, scene_of


def test_sizes_names_and_bounds(splits: dict[str, list[Scene]]) -> None:
    assert {split: len(scenes) for split, scenes in splits.items()} == SIZES
    assert splits["train"][12].clip_id == "train-00012"
    scenes = [scene for split in splits.values() for scene in split]
    assert all(4.0 <= scene.duration_s <= 8.0 and 1 <= len(scene.events) <= 3 for scene in scenes)
    assert 5.0 < np.mean([scene.duration_s for scene in scenes]) < 6.0
    assert {scene.relation for scene in scenes} == {"alone", "sequence", "overlap"}
    assert all((scene.relation == "alone") == (len(scene.events) == 1) for scene in scenes)
    assert len({scene.seed for scene in scenes}) == len(scenes)


def test_no_description_occurs_twice_in_or_across_splits(splits: dict[str, list[Scene]]) -> None:
    keys = [scene_key(scene) for scenes in splits.values() for scene in scenes]
    assert len(set(keys)) == len(keys)


def test_key_minds_order_only_in_a_sequence() -> None:
    pair = (Event("rain", loudness="loud"), Event("saw", pace="fast"))
    assert scene_key(scene_of(pair, "overlap")) == scene_key(scene_of(pair[::-1], "overlap", seed=9))
    assert scene_key(scene_of(pair, "sequence")) != scene_key(scene_of(pair[::-1], "sequence"))


def test_sampling_is_deterministic(splits: dict[str, list[Scene]]) -> None:
    assert sample_scenes(SIZES, seed=7) == splits
    assert sample_scenes(SIZES, seed=8) != splits


def test_splits_hold_scenes_that_only_attributes_or_order_tell_apart(splits: dict[str, list[Scene]]) -> None:
    train = splits["train"]
    by_kinds: dict[tuple[str, tuple[str, ...]], int] = {}
    for scene in train:
        key = (scene.relation, tuple(sorted(event.kind for event in scene.events)))
        by_kinds[key] = by_kinds.get(key, 0) + 1
    assert sum(number for number in by_kinds.values() if number > 1) > 0.2 * len(train)
    turned = {scene.events for scene in train if scene.relation == "sequence"}
    assert any(events[::-1] in turned for events in turned)


def test_classes_are_many_and_even(splits: dict[str, list[Scene]]) -> None:
    assert len(SOUNDS) >= 24
    kinds = [event.kind for scene in splits["train"] for event in scene.events]
    share = np.array([kinds.count(kind) for kind in SOUNDS]) / (len(kinds) / len(SOUNDS))
    assert share.min() > 0.5
    assert share.max() < 1.7


def test_events_carry_only_attributes_that_apply(splits: dict[str, list[Scene]]) -> None:
    for scene in splits["train"]:
        for event in scene.events:
            for name, values in ATTRIBUTES.items():
                applies = name in SOUNDS[event.kind].attributes and not (name == "pace" and event.count == "one")
                assert (getattr(event, name) in values) if applies else (getattr(event, name) is None)
