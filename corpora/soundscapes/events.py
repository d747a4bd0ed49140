"""Render one event: its sound, at the distance and loudness that its attributes say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import signal

from corpora.soundscapes.scene import Event
from corpora.soundscapes.sounds import SOUNDS
from corpora.soundscapes.take import Array, Take

_LEVEL_DB = {"loud": 0.0, "soft": -14.0, "near": -2.0, "far": -12.0, None: 0.0}


def render_event(
    event: Event, duration_s: float, sample_rate: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Render one event.

    Returns:
        Mono samples, [round(duration_s * sample_rate)], float32; the loudest 50 ms of a near, loud event has an RMS
        of 0.2, a far or soft one is quieter.

    Raises:
        KeyError: if the event's class is not one of `SOUNDS`.
    """
    samples = max(16, round(duration_s * sample_rate))
    dry = SOUNDS[event.kind].make(Take(event, samples, sample_rate, rng))
    placed = _far(dry, sample_rate, rng) if event.distance == "far" else dry
    level = 10 ** ((_LEVEL_DB[event.distance] + _LEVEL_DB[event.loudness]) / 20)
    edge = min(samples // 4, round(0.03 * sample_rate))
    placed[:edge] *= np.linspace(0, 1, edge)
    placed[-edge:] *= np.linspace(1, 0, edge)
    return (placed * (0.2 * level / (_loudest(placed, sample_rate) + 1e-9))).astype(np.float32)


def _far(dry: Array, sample_rate: int, rng: np.random.Generator) -> Array:
    """Return the sound as heard from afar: the air damps the treble, and the surroundings add reverberation."""
    # First order only: a distant cricket must still sound like a cricket.
    sos = signal.butter(1, rng.uniform(900, 1500), "lowpass", fs=sample_rate, output="sos")
    t = np.arange(round(0.5 * sample_rate)) / sample_rate
    tail = rng.standard_normal(len(t)) * np.exp(-t / rng.uniform(0.08, 0.16))
    tail *= rng.uniform(0.6, 1.0) / np.sqrt(np.sum(tail**2))
    muffled = signal.sosfilt(sos, dry)
    return muffled + signal.oaconvolve(muffled, tail)[: len(dry)]


def _loudest(x: Array, sample_rate: int) -> float:
    """Return the RMS of the loudest 50 ms: unlike the overall RMS, it treats a click and a drone alike."""
    frame = max(1, sample_rate // 20)
    whole = x[: len(x) // frame * frame]
    frames = whole.reshape(-1, frame) if len(whole) else x[None, :]
    return float(np.sqrt(np.mean(frames**2, axis=1).max()))
