"""Building blocks of sounds: filtered noise, tones, struck bodies, repeated hits, envelopes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import signal

from corpora.soundscapes.scene import Event

Array = npt.NDArray[np.float64]

_PITCH = {"high": 1.45, "low": 0.7, None: 1.0}
_RATE = {"fast": 1.7, "slow": 0.65, None: 1.0}


class Take:
    """One rendition of one event: its length, its jittered pitch and rate, and the building blocks of its sound."""

    def __init__(self, event: Event, samples: int, sample_rate: int, rng: np.random.Generator) -> None:
        self.event, self.samples, self.sample_rate, self.rng = event, samples, sample_rate, rng
        self.seconds = samples / sample_rate
        self.pitch = _PITCH[event.pitch] * rng.uniform(0.93, 1.07)
        self.rate = _RATE[event.pace] * rng.uniform(0.9, 1.1)

    def time(self, seconds: float | None = None) -> Array:
        """Return sample times in seconds, [samples]; those of the whole take when `seconds` is None."""
        length = self.samples if seconds is None else max(8, round(seconds * self.sample_rate))
        return np.arange(length) / self.sample_rate

    def noise(self, low: float, high: float, seconds: float | None = None) -> Array:
        """Return noise of unit RMS between about `low` and `high` Hz."""
        nyquist = self.sample_rate / 2
        high = min(high * self.rng.uniform(0.92, 1.08), 0.95 * nyquist)
        low = min(low * self.rng.uniform(0.92, 1.08), 0.6 * high)
        sos = signal.butter(2, [low, high], "bandpass", fs=self.sample_rate, output="sos")
        shaped = signal.sosfilt(sos, self.rng.standard_normal(len(self.time(seconds))))
        return shaped / (np.sqrt(np.mean(shaped**2)) + 1e-9)

    def tone(self, hertz: float | Array, partials: Sequence[float], seconds: float | None = None) -> Array:
        """Return a harmonic tone.

        Args:
            partials: amplitudes of harmonics 1, 2, ...; those beyond the Nyquist frequency are left out.
        """
        frequency = np.broadcast_to(hertz, self.time(seconds).shape)
        phase = 2 * np.pi * np.cumsum(frequency) / self.sample_rate + self.rng.uniform(0, 2 * np.pi)
        highest = float(frequency.max())
        audible = [(k, a) for k, a in enumerate(partials, 1) if k * highest < 0.48 * self.sample_rate]
        return sum((a * np.sin(k * phase) for k, a in audible), np.zeros_like(phase))

    def ring(self, ratios: Sequence[float], hertz: float, decay_s: float, seconds: float) -> Array:
        """Return the sound of a struck body: decaying sines at `hertz` times each ratio; the higher, the shorter."""
        t = self.time(seconds)
        out = np.zeros_like(t)
        for ratio in ratios:
            frequency = hertz * ratio * self.rng.uniform(0.985, 1.015)
            if frequency < 0.48 * self.sample_rate:
                loudness = self.rng.uniform(0.5, 1.0) / np.sqrt(ratio)
                out += loudness * np.sin(2 * np.pi * frequency * t) * np.exp(-t * np.sqrt(ratio) / decay_s)
        return out

    def wobble(self, per_second: float, low: float = 0.0, high: float = 1.0, seconds: float | None = None) -> Array:
        """Return a random curve between `low` and `high` that turns about `per_second` times a second."""
        t = self.time(seconds)
        points = self.rng.uniform(low, high, int(t[-1] * per_second) + 3)
        return np.interp(t * per_second, np.arange(len(points)), points)

    def hits(self, make: Callable[[Take], Array], period_s: float, jitter: float = 0.05) -> Array:
        """Return fresh renditions of one hit: as many as the event's count says, or enough to fill the take."""
        period = period_s / self.rate
        counts = {"one": 1, "two": 2, "three": 3, "several": int(self.rng.integers(4, 7))}
        number = counts.get(self.event.count or "", int(self.seconds / period) + 1)
        # All hits of a counted event must fit: shorten the period rather than lose a hit beyond the end.
        period = min(period, 0.85 * self.seconds / number)
        start = self.rng.uniform(0.0, max(0.02, min(0.5, 0.8 * self.seconds - number * period)))
        out = np.zeros(self.samples)
        for index in range(number):
            at = start + period * (index + self.rng.normal(0.0, jitter))
            first = min(max(0, round(at * self.sample_rate)), self.samples)
            hit = make(self)[: self.samples - first] * self.rng.uniform(0.75, 1.0)
            out[first : first + len(hit)] += hit
        return out

    def shower(self, per_second: float, kernel: Array) -> Array:
        """Return many copies of `kernel` at random times and strengths."""
        impulses = np.zeros(self.samples)
        number = max(3, self.rng.poisson(per_second * self.seconds))
        impulses[self.rng.integers(0, self.samples, number)] = self.rng.exponential(1.0, number)
        return signal.oaconvolve(impulses, kernel)[: self.samples]


def decay(t: Array, tau_s: float, attack_s: float = 0.003) -> Array:
    """Return the envelope of a hit: linear attack, exponential decay."""
    return np.minimum(t / attack_s, 1.0) * np.exp(-t / tau_s)


def arch(t: Array, edge: float = 0.15) -> Array:
    """Return the envelope of a held sound, which rises and falls over the share `edge` of its length."""
    position = np.linspace(0.0, 1.0, len(t))
    return np.clip(np.minimum(position, 1.0 - position) / edge, 0.0, 1.0)
