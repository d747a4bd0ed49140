"""Files whose headers say where the sound ends, which libsndfile does not go by."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from models.audio import AudioError, load_audio, read_duration

from .encoded_audio import JUNK, RATE, encoded, read, sound

KINDS = [
    ("W64", "PCM_16"),
    ("AU", "G721_32"),
    ("AU", "G723_24"),
    ("NIST", "PCM_16"),
    ("NIST", "ULAW"),
    ("AVR", "PCM_16"),
    ("MPC2K", "PCM_16"),
    ("WVE", "ALAW"),
    ("SDS", "PCM_16"),
    ("SDS", "PCM_S8"),
    ("SVX", "PCM_16"),
    ("SVX", "PCM_S8"),
]
LIST_OF_W64 = b"list\x2f\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0" + struct.pack("<Q", 32) + b"INFO" + bytes(4)


@pytest.mark.parametrize(
    ("kind", "subtype"), [*KINDS, *(("VOC", s) for s in ("PCM_16", "ULAW")), ("MAT4", None), ("MAT5", None)]
)
@pytest.mark.parametrize("share", [0.01, 0.6, 0.95])
def test_what_is_cut_off_is_truncated(kind: str, subtype: str | None, share: float) -> None:
    data = encoded(kind, subtype)
    assert len(read(data)) == pytest.approx(len(sound()) * (2 if kind == "WVE" else 1), abs=120)
    with pytest.raises(AudioError, match=r"clip: (is truncated|cannot be decoded|holds no samples)"):
        read(data[: round(share * len(data))])


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_what_follows_the_sound_is_not_heard(
    kind: str, subtype: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, data = tmp_path / "clip", encoded(kind, subtype)
    path.write_bytes(data + JUNK)
    np.testing.assert_array_equal(load_audio(path, RATE), read(data))
    (line,) = caplog.messages
    assert line == f"{path}: {len(JUNK):,} bytes after the sound, which its header does not count, are left out"
    caplog.clear()
    path.write_bytes(data)
    seconds = read_duration(path)
    path.write_bytes(data + bytes(5_000))
    np.testing.assert_array_equal(load_audio(path, RATE), read(data))
    assert read_duration(path) == seconds
    assert not caplog.messages


def test_what_describes_a_w64_behind_its_sound_is_neither_heard_nor_told(caplog: pytest.LogCaptureFixture) -> None:
    data = encoded("W64")
    np.testing.assert_array_equal(read(data + LIST_OF_W64), read(data))
    assert not caplog.messages


def test_w64_with_other_bytes_than_its_sound_is_read_as_far_as_it_says() -> None:
    data = bytearray(encoded("W64"))
    struct.pack_into("<Q", data, data.index(b"data") + 16, 24 + RATE * 2)
    np.testing.assert_array_equal(read(bytes(data)), read(encoded("W64"))[:RATE])
