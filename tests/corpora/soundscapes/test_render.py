"""The built-in corpus: what is promised of its scenes, sounds and captions."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.soundscapes.events import SOUNDS, render_event
from corpora.soundscapes.grammar import LEXICON, describe
from corpora.soundscapes.render import render, sample_scenes, scene_key, write_captions, write_clip
from corpora.soundscapes.scene import ATTRIBUTES, Event, Relation, Scene

SIZES = {"train": 300, "validation": 60, "test": 60}

# How a reader tells which class a caption speaks of; written apart from the grammar.
STEMS = {
    "rain": r"\brain",
    "wind": r"\bwinds?\b",
    "thunder": "thunder",
    "waves": r"\bwaves\b|surf",
    "water_drops": r"drip|\bdrops?\b",
    "fire": r"\bfire\b|flames",
    "birdsong": "bird",
    "crickets": "cricket|insects",
    "frog": "frog|toad",
    "dog_bark": "dog|hound",
    "cat_meow": r"\bcat\b",
    "cow_moo": r"\bcow\b",
    "siren": "siren",
    "bell": r"\bbell\b",
    "car_horn": r"\bcar\b",
    "train_horn": "train|locomotive",
    "telephone": "phone",
    "whistle": "whistle",
    "alarm_beep": "alarm",
    "footsteps": "footsteps|walk",
    "knocking": "knock",
    "applause": "clap(?! of)|applau",
    "typing": "typ(es|ing)|keyboard",
    "heartbeat": "heart",
    "engine": "engine|motor",
    "helicopter": "helicopter",
    "drill": "drill",
    "vacuum_cleaner": "vacuum",
    "saw": r"\bsaw",
    "hammer": "hammer",
    "clock": "clock",
    "glass_break": "glass",
    "door_creak": "creak|squeak",
}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Scene]]:
    return sample_scenes(SIZES, seed=7)


def _scene(events: tuple[Event, ...], relation: Relation = "alone", seed: int = 3, duration_s: float = 4.0) -> Scene:
    return Scene("train-00000", "train", seed, duration_s, events, relation)


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
    assert scene_key(_scene(pair, "overlap")) == scene_key(_scene(pair[::-1], "overlap", seed=9))
    assert scene_key(_scene(pair, "sequence")) != scene_key(_scene(pair[::-1], "sequence"))


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
    assert set(LEXICON) == set(SOUNDS) == set(STEMS)
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


def test_rendering_is_bounded_finite_and_as_long_as_said(splits: dict[str, list[Scene]]) -> None:
    for scene in splits["test"][:25]:
        audio = render(scene, 16000)
        assert audio.dtype == np.float32
        assert audio.shape == (round(scene.duration_s * 16000),)
        assert np.isfinite(audio).all()
        assert 0.005 < np.abs(audio).max() <= 1.0
    assert render(splits["test"][0], 44100).shape == (round(splits["test"][0].duration_s * 44100),)


def test_rendering_follows_the_seed(splits: dict[str, list[Scene]]) -> None:
    scene = splits["train"][0]
    np.testing.assert_array_equal(render(scene), render(scene))
    other = render(Scene(scene.clip_id, scene.split, scene.seed + 1, scene.duration_s, scene.events, scene.relation))
    assert abs(np.corrcoef(render(scene), other)[0, 1]) < 0.5


@pytest.mark.parametrize("kind", sorted(SOUNDS))
def test_every_class_renders_and_varies(kind: str) -> None:
    attributes = {name: ATTRIBUTES[name][-1] for name in SOUNDS[kind].attributes}
    one, two = (render_event(Event(kind, **attributes), 2.0, 16000, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.shape == two.shape == (32000,)
    assert np.isfinite(one).all()
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.9


def _bursts(audio: np.ndarray) -> int:
    """How many separate sounds there are: runs of 40 ms frames within 20 dB of the loudest."""
    power = np.mean(audio[: len(audio) // 640 * 640].reshape(-1, 640) ** 2, axis=1)
    loud = power > 0.01 * power.max()
    return int(loud[0]) + int(np.sum(loud[1:] & ~loud[:-1]))


@pytest.mark.parametrize("kind", ["knocking", "dog_bark", "car_horn", "frog"])
def test_count_can_be_heard(kind: str) -> None:
    for count, number in (("one", 1), ("two", 2), ("three", 3)):
        audio = render_event(Event(kind, count=count), 4.0, 16000, np.random.default_rng(5))
        assert _bursts(audio) == number


def test_pace_pitch_and_distance_can_be_heard() -> None:
    def made(event: Event) -> np.ndarray:
        return render_event(event, 4.0, 16000, np.random.default_rng(2))

    def centroid(audio: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(audio)) ** 2
        return float(np.sum(power * np.fft.rfftfreq(len(audio), 1 / 16000)) / power.sum())

    assert _bursts(made(Event("footsteps", pace="fast"))) > 1.5 * _bursts(made(Event("footsteps", pace="slow")))
    low, high = (made(Event("telephone", pitch=pitch, count="two")) for pitch in ("low", "high"))
    assert centroid(high) > 1.5 * centroid(low)
    near, far = (made(Event("applause", distance=distance)) for distance in ("near", "far"))
    assert centroid(far) < 0.9 * centroid(near)
    assert np.std(far) < 0.5 * np.std(near)


def _profile(audio: np.ndarray) -> np.ndarray:
    """Mean (less its own mean, so that level does not count) and spread over time of the log spectrum in 40 bands."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, 512)[::256] * np.hanning(512)
    edges = np.unique(np.geomspace(1, 257, 41).astype(int))
    bands = np.add.reduceat(np.abs(np.fft.rfft(frames, axis=1)) ** 2, edges[:-1], axis=1) / np.diff(edges)
    log = np.log(bands + 1e-5)
    return np.concatenate([log.mean(0) - log.mean(), log.std(0)])


def test_classes_can_be_told_apart() -> None:
    """Nearest centroid of ten renditions a class, attributes drawn at random, noise floor and random gain included."""
    rng = np.random.default_rng(0)

    def profile(kind: str) -> np.ndarray:
        event = Event(kind, **{name: str(rng.choice(ATTRIBUTES[name])) for name in SOUNDS[kind].attributes})
        return _profile(render(_scene((event,), seed=int(rng.integers(2**31)))))

    profiles = np.array([[profile(kind) for _ in range(13)] for kind in SOUNDS])
    centroids = profiles[:, :10].mean(axis=1)
    distances = ((profiles[:, 10:, None] - centroids) ** 2).sum(axis=-1)
    accuracy = np.mean(distances.argmin(axis=-1) == np.arange(len(SOUNDS))[:, None])
    assert accuracy > 0.6


def test_captions_are_five_different_and_name_every_event(splits: dict[str, list[Scene]]) -> None:
    for scene in (scene for scenes in splits.values() for scene in scenes):
        captions = describe(scene)
        assert len(set(captions)) == len(captions) == 5
        for caption in captions:
            assert 5 <= len(caption.split()) <= 20
            assert re.fullmatch(r"[a-z][a-z',\- ]*[a-z]", caption), caption
            for event in scene.events:
                assert re.search(STEMS[event.kind], caption), (event.kind, caption)


def test_captions_name_no_class_that_is_not_there(splits: dict[str, list[Scene]]) -> None:
    for scene in splits["train"]:
        absent = set(STEMS) - {event.kind for event in scene.events}
        for caption in describe(scene):
            assert not [kind for kind in absent if re.search(STEMS[kind], caption)], caption


def test_captions_keep_articles_and_agreement(splits: dict[str, list[Scene]]) -> None:
    text = "\n".join(caption for scenes in splits.values() for scene in scenes for caption in describe(scene))
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  | ,|\b(a|an) (a|an|two|three|several|many|one)\b", text)
    assert not re.search(r"there is (two|three|several|many|a couple)|there are (a|an|one) (?!couple)", text)
    assert not re.search(r"^(crickets|waves|people) (is|chirps|crashes|claps)\b", text, re.MULTILINE)
    assert not re.search(r"^(a dog|a bell|someone|rain) are\b", text, re.MULTILINE)
    assert 200 < len(set(re.findall(r"[a-z'\-]+", text))) < 400


def test_captions_tell_the_order_of_a_sequence() -> None:
    scene = _scene((Event("rain", loudness="loud"), Event("cow_moo", count="one")), "sequence")
    for caption in describe(scene):
        first, second = re.search(STEMS["rain"], caption), re.search(STEMS["cow_moo"], caption)
        assert first is not None
        assert second is not None
        assert first.start() < second.start()


def test_captions_follow_the_seed_and_never_contradict_attributes() -> None:
    event = Event("dog_bark", distance="far", pitch="low", count="two", pace="fast")
    texts = [caption for seed in range(40) for caption in describe(_scene((event,), seed=seed))]
    assert describe(_scene((event,), seed=1)) == describe(_scene((event,), seed=1))
    assert len(set(texts)) > 100
    assert any(re.search("twice|two", text) for text in texts)
    assert not all(re.search("twice|two|couple", text) for text in texts)
    assert not any(re.search(r"nearby|close|slow|small|little|high|once|single|three|several", text) for text in texts)


def test_written_files_can_be_read_back(tmp_path: Path, splits: dict[str, list[Scene]]) -> None:
    scene = splits["validation"][0]
    path = write_clip(scene, tmp_path, 16000)
    assert path == tmp_path / "validation" / "validation-00000.flac"
    audio, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000
    np.testing.assert_allclose(audio, render(scene, 16000), atol=1e-4)

    sheet = write_captions(tmp_path, "validation", splits["validation"])
    assert sheet == tmp_path / "validation.csv"
    rows = list(csv.DictReader(sheet.open(encoding="utf-8")))
    assert len(rows) == len(splits["validation"])
    assert list(rows[0]) == ["file_name", *(f"caption_{number}" for number in range(1, 6))]
    assert list(rows[0].values()) == ["validation-00000.flac", *describe(scene)]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, splits: dict[str, list[Scene]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(splits["test"][0], tmp_path, 16000)
    before = path.read_bytes()

    def fail(part: Path, *_: object, **__: object) -> None:
        Path(part).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(soundfile, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        write_clip(splits["test"][0], tmp_path, 16000)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
