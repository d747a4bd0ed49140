"""One sound in the formats that people have, and what must be true of each way to read it."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from models.audio import load_audio, read_duration

RATE = 16_000
SECONDS = 3.0
ID3V1 = b"TAG" + bytes(125)
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 9_000, 1, 0) + bytes(9_008)
ID3V2 = b"ID3\x04\0\0\0\0\x1f\x40" + bytes(31 * 128 + 64)
JUNK = b"junk" * 1_000


def sound(seconds: float = SECONDS) -> np.ndarray:
    """A tone under noise, the same in every call: no piece of it is like another."""
    time = np.arange(round(RATE * seconds)) / RATE
    noise = np.random.default_rng(0).normal(size=len(time))
    return (0.3 * np.sin(2 * np.pi * 440 * time) * time / SECONDS + 0.05 * noise).astype(np.float32)


def encoded(kind: str, subtype: str | None = None, **options: float | str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound(), RATE, format=kind, subtype=subtype, **options)
    return file.getvalue()


def constant_mp3() -> bytes:
    """MP3 at 40 kbit/s whose first frame, the Info frame, counts the others; each has 180 bytes."""
    data = encoded("MP3", bitrate_mode="CONSTANT", compression_level=0.8)
    assert data.index(b"Info") < 180
    assert data[180:182] == data[:2]
    return data


def uncounted_mp3(variable: bool = False) -> bytes:
    """MP3 without a frame that counts the others; the variable one begins with frames larger than most."""
    data = encoded("MP3") if variable else constant_mp3()
    return data[data.index(data[:2], 2) :]


def uncounted_flac() -> bytes:
    """FLAC as an encoder writes it that cannot go back to the beginning: of 0 samples."""
    data = bytearray(encoded("FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def wav_of_mp3(mp3: bytes) -> bytes:
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 5_000, 1, 0, 12, 1, 2, 180, 1, 0)
    chunks = {b"fmt ": form, b"data": mp3, b"LIST": b"INFO"}
    body = b"WAVE" + b"".join(name + struct.pack("<I", len(chunk)) + chunk for name, chunk in chunks.items())
    return b"RIFF" + struct.pack("<I", len(body)) + body


def wav_stating(size: int) -> bytes:
    data = bytearray(encoded("WAV"))
    struct.pack_into("<I", data, data.index(b"data") + 4, size)
    return bytes(data)


def read(data: bytes, max_duration_s: float | None = None) -> np.ndarray:
    return load_audio(io.BytesIO(data), RATE, max_duration_s, name="clip")


def assert_whole(data: bytes, least: float = 0.999, delay_s: float = 0.0) -> None:
    """What is decoded is the sound, from its beginning to its end, and as long as is said without decoding."""
    heard, made = read(data), sound()
    start = round(delay_s * RATE)
    assert abs(len(heard) - start - len(made)) <= 1_200, f"{len(heard)} samples"
    assert np.corrcoef(heard[start:][: len(made)], made[: len(heard) - start])[0, 1] > least
    assert read_duration(io.BytesIO(data)) == pytest.approx(len(heard) / RATE)
    first = read(data, 1.0)
    assert len(first) == RATE
    np.testing.assert_allclose(first, heard[:RATE], atol=1e-6)
