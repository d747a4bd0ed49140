"""Files whose headers leave out how much sound there is, or count less than there is."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.audio import AudioError, load_audio, read_duration

from .encoded_audio import JUNK, RATE, assert_whole, encoded, read, sound, wav_stating


@pytest.mark.parametrize("size", [0, 96_036, 96_001, 2**32 - 1, 0x7FFFF000, 0x7FFF0000, 2**31, 2**31 + 36])
def test_wav_with_a_wrong_size_is_read_whole(size: int) -> None:
    assert_whole(wav_stating(size))


def test_wav_that_ends_early_is_truncated() -> None:
    with pytest.raises(AudioError, match="is truncated: 96000 bytes of sound, the header says 98000"):
        read(wav_stating(98_000))


@pytest.mark.parametrize("kind", ["AU", "CAF", "W64", "RF64", "AIFF", "WAV"])
@pytest.mark.parametrize("missing", [2_000, 30_000, 90_000])
def test_cut_pcm_is_truncated(kind: str, missing: int) -> None:
    data = encoded(kind)
    assert_whole(data)
    np.testing.assert_array_equal(read(data + JUNK)[: len(sound())], read(data))
    if kind == "CAF" and missing > 2_000:
        pytest.importorskip("av", reason="without the extra `formats` it is malformed")
    with pytest.raises(AudioError, match="clip: is truncated"):
        read(data[:-missing])


def stating(kind: str, size: int) -> bytes:
    """PCM whose header says that there are so many bytes of sound, in all the places where it says so."""
    data = bytearray(encoded(kind))
    if kind == "AU":
        struct.pack_into(">I", data, 8, size)
    elif kind == "AIFF":
        struct.pack_into(">I", data, 4, size)
        struct.pack_into(">I", data, data.index(b"SSND") + 4, size)
    elif kind == "RF64":
        struct.pack_into("<QQQ", data, data.index(b"ds64") + 8, size, size, size // 2)
    else:
        struct.pack_into("<Q", data, 16, size)
        struct.pack_into("<Q", data, data.index(b"data") + 16, size)
    return bytes(data)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *(("AU", size) for size in (0, 0x7F000000, 2**31 - 1, 2**31, 2**32 - 1)),
        *(("AIFF", size) for size in (0, 0x7F000000, 2**31, 2**32 - 1)),
        *(("RF64", size) for size in (0, 2**31, 2**63 - 1, 2**64 - 1)),
        *(("W64", size) for size in (0, 2**31, 2**63 - 1, 2**64 - 1)),
    ],
)
def test_a_size_that_was_never_known_is_not_one(kind: str, size: int, tmp_path: Path) -> None:
    data = stating(kind, size)
    assert_whole(data)
    np.testing.assert_array_equal(read(data), read(encoded(kind)))
    path = tmp_path / "clip"
    path.write_bytes(data)
    np.testing.assert_array_equal(load_audio(path, RATE), read(data))
    assert path.read_bytes() == data, "what is changed is changed in memory"


@pytest.mark.parametrize("kind", ["AU", "WAV"])
def test_a_size_that_was_never_known_is_told(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    data = stating("AU", 0) if kind == "AU" else wav_stating(0)
    load_audio(io.BytesIO(data), RATE, name=f"unset.{kind}")
    assert caplog.messages == [
        f"unset.{kind}: its header does not say how much sound there is; what follows is read to the end"
    ]


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        *((kind, None) for kind in ("AU", "CAF", "W64", "RF64", "AIFF", "WAV")),
        *((kind, "PCM_16") for kind in ("NIST", "AVR", "SVX")),
        ("WVE", "ALAW"),
    ],
)
def test_joined_files_of_pcm_are_refused(kind: str, subtype: str | None, tmp_path: Path) -> None:
    """libsndfile refuses some of them, and of others passes over the second without a word."""
    path, data = tmp_path / "two", encoded(kind, subtype)
    path.write_bytes(data * 2)
    for look in (lambda: load_audio(path, RATE), lambda: read_duration(path), lambda: load_audio(path, RATE, 0.5)):
        with pytest.raises(AudioError, match=rf"two: another file was joined to it after byte {len(data):,}; split"):
            look()


def test_a_chunk_with_any_name_is_no_sound(caplog: pytest.LogCaptureFixture) -> None:
    """Adobe's programs write `_PMX`."""
    data = bytearray(encoded("WAV") + b"_PMX" + struct.pack("<I", 12) + b"<x:xmpmeta/>")
    struct.pack_into("<I", data, 4, len(data) - 8)
    np.testing.assert_array_equal(read(bytes(data)), read(encoded("WAV")))
    assert not caplog.messages


def test_a_second_sound_in_a_wav_is_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path, second = tmp_path / "two.wav", encoded("WAV")[36:]
    path.write_bytes(encoded("WAV") + second)
    np.testing.assert_array_equal(load_audio(path, RATE), read(encoded("WAV")))
    assert read_duration(path) == 3.0
    (line,) = caplog.messages
    assert line == f"{path}: {len(second):,} bytes after the sound, which its header does not count, are left out"


@pytest.mark.parametrize("filled", [b"", b"\0"])
def test_what_describes_a_wav_behind_its_sound_is_not_told(filled: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file = io.BytesIO()
    soundfile.write(file, sound()[:999], RATE, format="WAV", subtype="PCM_U8")
    data = file.getvalue()[: 44 + 999] + filled + b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert len(load_audio(io.BytesIO(data), RATE, name="tagged.wav")) == 999
    assert not caplog.messages


def test_wav_without_sound_before_another_chunk_has_none() -> None:
    file = io.BytesIO()
    soundfile.write(file, sound()[:0], RATE, format="WAV")
    with pytest.raises(AudioError, match="holds no samples"):
        read(file.getvalue() + b"LIST" + struct.pack("<I", 4) + b"INFO")
