"""Files are opened whatever lies beside them, and what the system says of them reaches the user with their name."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import models
from models.audio import AudioError, load_audio, read_duration
from models.audio_opening import open_sound

from .encoded_audio import (
    ID3V2,
    JUNK,
    RATE,
    constant_mp3,
    encoded,
    uncounted_flac,
    uncounted_mp3,
    wav_of_mp3,
    wav_stating,
)

MPEG = {
    "counted": constant_mp3(),
    "uncounted": uncounted_mp3(),
    "joined": constant_mp3() * 2,
    "tagged": ID3V2 + uncounted_mp3(),
    "in WAV": wav_of_mp3(uncounted_mp3()),
}


def remove_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "models.audio_ffmpeg", raising=False)
    monkeypatch.delattr(models, "audio_ffmpeg", raising=False)


@pytest.mark.parametrize("data", MPEG.values(), ids=MPEG)
def test_what_macos_leaves_beside_a_file_is_not_read(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libsndfile would: what is called `._` and a file's name, `._` alone where the file has none."""
    remove_av(monkeypatch)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "clip.mp3"
    path.write_bytes(data)
    alone, duration_s = load_audio(path, RATE), read_duration(path)
    for name in ("._", "._clip.mp3"):
        (tmp_path / name).touch()
    for source in (path, io.BytesIO(data)):
        np.testing.assert_array_equal(load_audio(source, RATE), alone)
        assert read_duration(source) == duration_s


@pytest.mark.parametrize("data", [constant_mp3() * 2, constant_mp3() + JUNK])
def test_the_decoder_prints_nothing_of_a_wrong_count(
    data: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clip.mp3").write_bytes(data)
    for source in (tmp_path / "clip.mp3", io.BytesIO(data)):
        load_audio(source, RATE, name="clip")
        read_duration(source, name="clip")
    assert "Xing" not in capfd.readouterr().err


@pytest.mark.parametrize("function", [lambda path: load_audio(path, RATE), read_duration])
def test_a_file_that_must_not_be_read_is_told_as_such(
    function: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "locked.flac"
    path.write_bytes(encoded("FLAC"))
    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(AudioError, match=r"locked\.flac: cannot be read \(Permission denied\)"):
        function(path)


def test_an_error_has_no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    remove_av(monkeypatch)
    with pytest.raises(AudioError, match=r"^clip: cannot be decoded as audio \(Format not recognised\.\); for formats"):
        load_audio(io.BytesIO(JUNK), RATE, name="clip")


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"\n<!DOCTYPE html><p>Not found", r"a web page \(HTML\), expected audio; download the sound again"),
        (b"<HTML>", r"a web page \(HTML\), expected audio"),
        (b"PK\x03\x04", "a ZIP archive, expected audio; unpack it"),
        (b"\x1f\x8b\x08", "a gzip archive, expected audio; unpack it"),
        (b"%PDF-1.7", "a PDF document, expected audio"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture, expected audio"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture, expected audio"),
    ],
)
def test_what_is_no_sound_is_named(start: bytes, message: str) -> None:
    for function in (lambda file: load_audio(file, RATE), read_duration):
        with pytest.raises(AudioError, match=rf": found {message}"):
            function(io.BytesIO(start + bytes(500)))


SHRINKING = {
    "MP3": constant_mp3(),
    "OGG": encoded("OGG"),
    "FLAC": encoded("FLAC"),
    "FLAC without a count": uncounted_flac(),
    "WAV": encoded("WAV"),
    "WAV without a size": wav_stating(0),
}


@pytest.mark.parametrize("data", SHRINKING.values(), ids=SHRINKING)
def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped memory would end the process."""
    path = tmp_path / "clip"
    path.write_bytes(data)

    def open_and_cut(*args: object) -> object:
        opened = open_sound(*args)  # type: ignore[arg-type]
        os.truncate(path, 5_000)
        return opened

    monkeypatch.setattr("models.audio_opening._AT_ONCE", 0)
    monkeypatch.setattr("models.audio.open_sound", open_and_cut)
    with pytest.raises(AudioError, match=rf"^{path}: (cannot be read \(it had [\d,]+ bytes and became|is truncated)"):
        load_audio(path, RATE)


FILES = {
    **MPEG,
    "tagged and damaged": ID3V2 + constant_mp3()[:7_200] + bytes(500) + constant_mp3()[7_200:],
    "OGG": encoded("OGG") * 2 + JUNK,
    "FLAC": encoded("FLAC") + uncounted_flac(),
    "WAV": encoded("WAV") + JUNK,
    "without a size": wav_stating(0),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_file_that_is_read_piece_by_piece_sounds_as_one_in_memory(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long ones are."""
    path = tmp_path / "clip"
    path.write_bytes(data)
    monkeypatch.setattr("models.audio_opening._AT_ONCE", 0)
    np.testing.assert_array_equal(load_audio(path, RATE), load_audio(io.BytesIO(data), RATE))
    assert read_duration(path) == read_duration(io.BytesIO(data))


def test_sound_within_an_archive_is_not_taken_for_a_file_of_it(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp3"  # libsndfile goes by this name
    path.write_bytes(b"clip.mp3".ljust(257, b"\0") + b"ustar\0" + bytes(249) + constant_mp3())
    for look in (load_audio, lambda path, _: read_duration(path)):
        with pytest.raises(AudioError, match=f"^{path}: found a tar archive, expected audio; unpack it"):
            look(path, RATE)
