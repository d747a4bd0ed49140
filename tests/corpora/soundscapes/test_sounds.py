"""The sounds of the built-in corpus: varied, with attributes that can be heard."""

from __future__ import annotations

import numpy as np
import pytest

from corpora.soundscapes.events import render_event
from corpora.soundscapes.render import render
from corpora.soundscapes.scene import ATTRIBUTES, Event
from corpora.soundscapes.sounds import SOUNDS
from tests.corpora.soundscapes.scenes import scene_of


@pytest.mark.parametrize("kind", sorted(SOUNDS))
def test_every_class_renders_and_varies(kind: str) -> None:
    attributes = {name: ATTRIBUTES[name][-1] for name in SOUNDS[kind].attributes}
    one, two = (render_event(Event(kind, **attributes), 2.0, 16000, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.shape == two.shape == (32000,)
    assert np.isfinite(one).all()
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.9


def _bursts(audio: np.ndarray) -> int:
    """Return the number of separate sounds: runs of 40 ms frames within 20 dB of the loudest."""
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
    """Return mean (centred, so that level does not count) and spread over time of the log spectrum in 40 bands."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, 512)[::256] * np.hanning(512)
    edges = np.unique(np.geomspace(1, 257, 41).astype(int))
    bands = np.add.reduceat(np.abs(np.fft.rfft(frames, axis=1)) ** 2, edges[:-1], axis=1) / np.diff(edges)
    log = np.log(bands + 1e-5)
    return np.concatenate([log.mean(0) - log.mean(), log.std(0)])


def test_classes_can_be_distinguished() -> None:
    """By the nearest centroid of ten renditions of each class, with random attributes, noise floor and random gain."""
    rng = np.random.default_rng(0)

    def profile(kind: str) -> np.ndarray:
        event = Event(kind, **{name: str(rng.choice(ATTRIBUTES[name])) for name in SOUNDS[kind].attributes})
        return _profile(render(scene_of((event,), seed=int(rng.integers(2**31)))))

    profiles = np.array([[profile(kind) for _ in range(13)] for kind in SOUNDS])
    centroids = profiles[:, :10].mean(axis=1)
    distances = ((profiles[:, 10:, None] - centroids) ** 2).sum(axis=-1)
    accuracy = np.mean(distances.argmin(axis=-1) == np.arange(len(SOUNDS))[:, None])
    assert accuracy > 0.6
