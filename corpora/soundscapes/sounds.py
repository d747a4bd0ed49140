"""Procedural sounds: one function for each class, registered with the attributes that apply to it.

Every rendition draws its own pitch, timing and filters, so that a class never sounds the same twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import signal

from corpora.soundscapes.take import Array, Take, arch, decay


@dataclass(frozen=True)
class Sound:
    """A class of sound: the function that makes it, and the attributes that apply."""

    make: Callable[[Take], Array]
    attributes: tuple[str, ...]


SOUNDS: dict[str, Sound] = {}


def sound(*attributes: str) -> Callable[[Callable[[Take], Array]], Callable[[Take], Array]]:
    """Register the decorated function as the class of sound of its name."""

    def register(make: Callable[[Take], Array]) -> Callable[[Take], Array]:
        SOUNDS[make.__name__] = Sound(make, attributes)
        return make

    return register


# Weather, water, fire


@sound("loudness", "distance")
def rain(take: Take) -> Array:
    t = take.time(0.02)
    drops = take.shower(220, take.noise(1500, 7000, 0.02) * decay(t, 0.003, 0.0005))
    return 0.45 * take.noise(1800, 7500) * take.wobble(1.5, 0.8, 1.1) + drops


@sound("loudness", "pitch")
def wind(take: Take) -> Array:
    gust = take.wobble(1.2, 0.15, 1.0)
    low, high = 130 * take.pitch, 420 * take.pitch
    return take.noise(low, high) * gust + 0.6 * take.noise(2 * high, 2.3 * high) * gust**3


@sound("distance", "loudness")
def thunder(take: Take) -> Array:
    t = take.time()
    strike = take.rng.uniform(0.05, 0.3) * take.seconds
    since = np.maximum(t - strike, 0.0)
    swell = (t > strike) * np.exp(-since / (0.4 * take.seconds)) + 0.1
    crack = take.noise(200, 2500) * (t > strike) * np.exp(-since / 0.08)
    return take.noise(25, 120) * swell * take.wobble(5, 0.2, 1.0) + 0.5 * crack


@sound("pace", "distance")
def waves(take: Take) -> Array:
    turns = take.time() * 0.55 * take.rate + take.rng.uniform(0, 1)
    # A wave builds slowly and breaks fast.
    swell = (turns % 1.0) ** 2.5 * np.clip((1 - turns % 1.0) / 0.12, 0, 1)
    return take.noise(300, 3500) * (0.08 + swell) + 0.5 * take.noise(60, 250) * swell


@sound("pace", "pitch", "count")
def water_drops(take: Take) -> Array:
    def drop(take: Take) -> Array:
        t = take.time(0.16)
        start = 750 * take.pitch * take.rng.uniform(0.9, 1.1)
        return take.tone(start * (1 + 9 * t), [1.0, 0.1], 0.16) * decay(t, 0.035)

    return take.hits(drop, 0.5, 0.1)


@sound("loudness", "distance")
def fire(take: Take) -> Array:
    t = take.time(0.03)
    crackle = take.shower(9, take.noise(700, 6000, 0.03) * decay(t, 0.004, 0.0003))
    pops = take.shower(3, take.noise(250, 1500, 0.03) * decay(t, 0.008, 0.0005))
    return crackle + 2 * pops + 0.1 * take.noise(50, 300) * take.wobble(4, 0.4, 1.0)


# Animals


@sound("distance", "pitch", "pace")
def birdsong(take: Take) -> Array:
    def chirp(take: Take) -> Array:
        length = take.rng.uniform(0.08, 0.2)
        t = take.time(length)
        base = 2900 * take.pitch * take.rng.uniform(0.85, 1.15)
        sweep = base * (1 + take.rng.uniform(-0.25, 0.25) * t / length + 0.06 * np.sin(2 * np.pi * 28 * t))
        return take.tone(sweep, [1.0, 0.15], length) * arch(t, 0.3)

    return take.hits(chirp, 0.26, 0.2)


@sound("distance", "pace", "pitch")
def crickets(take: Take) -> Array:
    t = take.time()
    pulses = np.clip(np.sin(2 * np.pi * 32 * take.rng.uniform(0.9, 1.1) * t), 0, None) ** 2
    trill = np.clip(8 * np.sin(2 * np.pi * 1.6 * take.rate * t + take.rng.uniform(0, 6)), 0, 1)
    return take.tone(4500 * take.pitch**0.5, [1.0]) * pulses * trill


@sound("distance", "pitch", "count", "pace")
def frog(take: Take) -> Array:
    def croak(take: Take) -> Array:
        t = take.time(0.3)
        pulses = (0.5 - 0.5 * np.cos(2 * np.pi * 42 * take.rng.uniform(0.9, 1.1) * t)) ** 4
        voice = take.noise(550 * take.pitch, 850 * take.pitch, 0.3) + 0.3 * take.noise(1500, 2000, 0.3)
        return voice * pulses * arch(t, 0.2)

    return take.hits(croak, 0.6)


@sound("distance", "pitch", "count", "pace")
def dog_bark(take: Take) -> Array:
    def bark(take: Take) -> Array:
        length = take.rng.uniform(0.15, 0.22)
        t = take.time(length)
        falling = 480 * take.pitch * take.rng.uniform(0.93, 1.07) * (1.15 - 0.5 * t / length)
        rasp = 0.5 * take.noise(600 * take.pitch, 2200 * take.pitch, length)
        return (take.tone(falling, [0.7, 1.0, 0.7, 0.45, 0.3, 0.2], length) + rasp) * arch(t, 0.25)

    return take.hits(bark, 0.5)


@sound("distance", "pitch", "count")
def cat_meow(take: Take) -> Array:
    def meow(take: Take) -> Array:
        length = take.rng.uniform(0.5, 0.75)
        t = take.time(length)
        glide = 620 * take.pitch * (0.8 + 0.45 * np.sin(np.pi * (t / length) ** 0.7))
        return take.tone(glide, [0.5, 1.0, 0.8, 0.3, 0.25, 0.1], length) * arch(t, 0.35)

    return take.hits(meow, 0.9)


@sound("distance", "pitch", "count")
def cow_moo(take: Take) -> Array:
    def moo(take: Take) -> Array:
        length = take.rng.uniform(0.9, 1.2)
        t = take.time(length)
        glide = 135 * take.pitch * (0.85 + 0.25 * np.sin(np.pi * t / length))
        return take.tone(glide, [1.0, 0.9, 0.8, 0.5, 0.35, 0.15, 0.1, 0.05], length) * arch(t, 0.25)

    return take.hits(moo, 1.3)


# Signals


@sound("distance", "pace")
def siren(take: Take) -> Array:
    sway = np.sin(2 * np.pi * 0.55 * take.rate * take.time() + take.rng.uniform(0, 6))
    return take.tone(take.rng.uniform(850, 950) + 400 * sway, [1.0, 0.35, 0.25])


@sound("distance", "pitch", "count")
def bell(take: Take) -> Array:
    def strike(take: Take) -> Array:
        return take.ring((0.5, 1.0, 1.2, 1.5, 2.0, 2.7, 4.1), 520 * take.pitch, 0.5, 1.6)

    return take.hits(strike, 0.85, 0.02)


@sound("distance", "count")
def car_horn(take: Take) -> Array:
    def honk(take: Take) -> Array:
        length = take.rng.uniform(0.35, 0.5)
        rich = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
        chord = take.tone(420 * root, rich, length) + take.tone(528 * root, rich, length)
        return chord * arch(take.time(length), 0.06)

    root = take.rng.uniform(0.92, 1.08)
    return take.hits(honk, 0.7)


@sound("distance", "count")
def train_horn(take: Take) -> Array:
    def blast(take: Take) -> Array:
        length = take.rng.uniform(0.8, 1.1)
        chord = sum(take.tone(hertz * root, [1.0, 0.6, 0.3, 0.12], length) for hertz in (233.0, 277.0, 330.0, 370.0))
        return (chord + 0.3 * take.noise(400, 2500, length)) * arch(take.time(length), 0.2)

    root = take.rng.uniform(0.9, 1.1)
    return take.hits(blast, 1.25)


@sound("distance", "pitch", "count")
def telephone(take: Take) -> Array:
    def trill(take: Take) -> Array:
        t = take.time(0.55)
        clapper = np.sin(2 * np.pi * 20 * t) > 0
        pair = np.where(clapper, take.tone(1350 * take.pitch, [1.0, 0.0, 0.4], 0.55), 0.0)
        return (pair + np.where(clapper, 0.0, take.tone(1700 * take.pitch, [1.0, 0.0, 0.4], 0.55))) * arch(t, 0.05)

    return take.hits(trill, 0.85, 0.02)


@sound("distance", "pitch", "count")
def whistle(take: Take) -> Array:
    def blow(take: Take) -> Array:
        length = take.rng.uniform(0.3, 0.5)
        t = take.time(length)
        pea = 1 + 0.03 * np.sin(2 * np.pi * 45 * t)
        breath = 0.25 * take.noise(2000, 4500, length)
        return (take.tone(2500 * take.pitch * pea, [1.0, 0.1], length) * (0.7 + 10 * (pea - 1)) + breath) * arch(t, 0.1)

    return take.hits(blow, 0.7)


@sound("pace", "pitch", "distance")
def alarm_beep(take: Take) -> Array:
    def beep(take: Take) -> Array:
        t = take.time(0.11)
        return take.tone(1000 * take.pitch, [1.0, 0.0, 0.8, 0.0, 0.5, 0.0, 0.3], 0.11) * arch(t, 0.05)

    return take.hits(beep, 0.3, 0.0)


# People


@sound("pace", "distance")
def footsteps(take: Take) -> Array:
    def step(take: Take) -> Array:
        t = take.time(0.2)
        scuff = 0.3 * take.noise(900, 2200, 0.2) * decay(np.maximum(t - 0.03, 0), 0.03, 0.01)
        return take.noise(70, 260, 0.2) * decay(t, 0.035) + scuff

    return take.hits(step, 0.5, 0.03)


@sound("loudness", "count", "pace")
def knocking(take: Take) -> Array:
    def knock(take: Take) -> Array:
        wood = take.ring((1.0, 2.1, 3.4), 260, 0.035, 0.25)
        return wood + 0.25 * take.noise(300, 1500, 0.25) * decay(take.time(0.25), 0.008)

    return take.hits(knock, 0.34, 0.04)


@sound("loudness", "distance")
def applause(take: Take) -> Array:
    t = take.time(0.03)
    claps = [take.shower(40, take.noise(800, 2600, 0.03) * decay(t, 0.006, 0.001)) for _ in range(3)]
    return sum(claps, np.zeros(take.samples)) * take.wobble(2, 0.6, 1.0)


@sound("pace", "loudness")
def typing(take: Take) -> Array:
    def key(take: Take) -> Array:
        t = take.time(0.06)
        return take.noise(2200, 5000, 0.06) * decay(t, 0.007, 0.001) + 0.6 * take.ring((1.0, 1.6), 420, 0.012, 0.06)

    return take.hits(key, 0.17, 0.25)


@sound("pace", "loudness")
def heartbeat(take: Take) -> Array:
    def beat(take: Take) -> Array:
        t = take.time(0.5)
        lub, dub = decay(t, 0.05, 0.015), decay(np.maximum(t - 0.24, 0), 0.04, 0.015)
        return take.tone(52 * take.rng.uniform(0.93, 1.07), [1.0, 0.35], 0.5) * (lub + 0.7 * dub)

    return take.hits(beat, 0.9, 0.02)


# Tools and machines


@sound("distance", "pitch")
def engine(take: Take) -> Array:
    idle = 38 * take.pitch * take.wobble(2, 0.93, 1.07)
    return take.tone(idle, [0.4, 1.0, 0.5, 0.9, 0.4, 0.6, 0.3, 0.3, 0.2, 0.2]) + 0.35 * take.noise(80, 700)


@sound("distance", "pace")
def helicopter(take: Take) -> Array:
    blades = (0.5 + 0.5 * np.sin(2 * np.pi * 11 * take.rate * take.time())) ** 6
    return take.noise(90, 1100) * (0.08 + blades) + 0.2 * take.tone(620, [1.0, 0.4])


@sound("pitch", "distance")
def drill(take: Take) -> Array:
    motor = take.wobble(3, 0.95, 1.05)
    teeth = 0.6 + 0.4 * np.sin(2 * np.pi * 70 * take.time())
    whine = take.tone(750 * take.pitch * motor, [0.3, 0.5, 0.6, 0.8, 0.5, 0.4])
    return (whine + 0.5 * take.noise(2500, 6500)) * teeth


@sound("pitch", "loudness")
def vacuum_cleaner(take: Take) -> Array:
    hum = take.tone(230 * take.pitch * take.wobble(1, 0.99, 1.01), [1.0, 0.6, 0.3, 0.2, 0.25, 0.15])
    return 0.7 * hum + 0.6 * take.noise(350, 1800) + 0.15 * take.noise(2000, 7000)


@sound("pace", "distance")
def saw(take: Take) -> Array:
    strokes = take.time() * 2.4 * take.rate + take.rng.uniform(0, 1)
    stroke = np.sin(np.pi * (strokes % 1.0)) ** 1.5 * np.where(strokes.astype(int) % 2 == 0, 1.0, 0.6)
    teeth = 0.5 + 0.5 * np.sin(2 * np.pi * 110 * take.rng.uniform(0.9, 1.1) * take.time())
    return take.noise(1300, 3200) * stroke * teeth


@sound("count", "pace", "distance")
def hammer(take: Take) -> Array:
    def clang(take: Take) -> Array:
        metal = take.ring((1.0, 1.83, 2.6, 3.4), 1750, 0.11, 0.5)
        return metal + 0.5 * take.noise(150, 500, 0.5) * decay(take.time(0.5), 0.02)

    return take.hits(clang, 0.5, 0.04)


@sound("pace", "loudness")
def clock(take: Take) -> Array:
    def tick(take: Take) -> Array:
        body = 3100 * take.rng.choice((0.85, 1.0))
        click = 0.3 * take.noise(4500, 7500, 0.05) * decay(take.time(0.05), 0.002)
        return take.ring((1.0, 1.45), body, 0.006, 0.05) + click

    return take.hits(tick, 0.48, 0.0)


@sound("distance", "loudness")
def glass_break(take: Take) -> Array:
    crash = take.noise(2500, 7500, 0.5) * decay(take.time(0.5), 0.06, 0.001)
    shards = np.zeros(take.samples)
    start = take.rng.uniform(0, 0.15 * take.seconds)
    moments = start + np.minimum(take.rng.exponential(0.25, 14), 0.7 * take.seconds)
    for moment in (start, *moments):
        piece = take.ring((1.0, 1.37), take.rng.uniform(2600, 6000), take.rng.uniform(0.03, 0.12), 0.5)
        first = round(moment * take.sample_rate)
        piece = (crash + piece if moment == start else 0.5 * piece)[: take.samples - first]
        shards[first : first + len(piece)] += piece
    return shards


@sound("pitch", "pace")
def door_creak(take: Take) -> Array:
    # Stick and slip: pulses whose rate wanders, through the resonances of the wood.
    slips = np.cumsum(take.wobble(2.5 * take.rate, 45, 140)) * take.pitch / take.sample_rate
    pulses = np.diff(np.floor(slips), prepend=0.0) * take.rng.uniform(0.5, 1.0, take.samples)
    wood = take.ring((1.0, 1.9, 3.1), 780 * take.pitch, 0.012, 0.08)
    return signal.oaconvolve(pulses, wood)[: take.samples] * take.wobble(3 * take.rate, 0.0, 1.0)
