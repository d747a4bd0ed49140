"""Decoded samples, and every way in which a file can be unusable."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.audio import AudioError, load_audio, read_duration
from models.files import GIT_LFS

from .encoded_audio import RATE, encoded


def _sine(hertz: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def test_mixes_down_by_the_mean(tmp_path: Path) -> None:
    left, right = _sine(440, 0.5, 16000), _sine(880, 0.5, 16000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    audio = load_audio(tmp_path / "a.wav", 16000)
    assert audio.dtype == np.float32
    np.testing.assert_allclose(audio, (left + right) / 2, atol=1e-6)


def test_resamples_without_moving_pitch_or_level(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", _sine(1000, 1.0, 44100), 44100)
    audio = load_audio(tmp_path / "a.flac", 16000)
    assert abs(len(audio) - 16000) <= 1
    spectrum = np.abs(np.fft.rfft(audio))
    assert abs(np.argmax(spectrum) * 16000 / len(audio) - 1000) < 2
    assert abs(np.abs(audio[2000:-2000]).max() - 0.5) < 0.01


def test_removes_what_the_new_rate_cannot_hold(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", _sine(500, 1.0, 44100) + 0.9 * _sine(12000, 1.0, 44100), 44100, subtype="FLOAT")
    audio = load_audio(tmp_path / "a.wav", 16000)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    assert spectrum[3000:].max() < 1e-3 * spectrum.max()


def test_reads_no_more_than_asked(tmp_path: Path) -> None:
    sine = _sine(440, 2.0, 16000)
    soundfile.write(tmp_path / "a.wav", sine, 16000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav", 16000, max_duration_s=0.5), sine[:8000], atol=1e-6)
    assert len(load_audio(tmp_path / "a.wav", 16000, max_duration_s=9.0)) == 32000


def _make_text(path: Path) -> None:
    path.write_text("this is not audio")


def _make_truncated_header(path: Path) -> None:
    soundfile.write(path, _sine(440, 0.1, 8000), 8000)
    path.write_bytes(path.read_bytes()[:20])


def _make_empty(path: Path) -> None:
    path.write_bytes(b"")


def _make_no_frames(path: Path) -> None:
    soundfile.write(path, np.zeros((0, 1)), 16000)


def _make_nan(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.nan, 0.2], dtype=np.float32), 16000, subtype="FLOAT")


def _make_infinite(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.inf, 0.2], dtype=np.float32), 16000, subtype="FLOAT")


def _make_integers_as_floats(path: Path) -> None:
    soundfile.write(path, 2000 * _sine(440, 1.0, 16000), 16000, subtype="FLOAT")


def _make_enormous(path: Path) -> None:
    soundfile.write(path, 2e30 * _sine(440, 1.0, 16000), 16000, subtype="FLOAT")


def _make_pointer(path: Path) -> None:
    path.write_bytes(GIT_LFS + b"v1\noid sha256:0\nsize 438\n")


def _make_silence(path: Path) -> None:
    soundfile.write(path, np.zeros(1000), 16000)


def _make_cancelling_channels(path: Path) -> None:
    soundfile.write(path, np.stack([_sine(440, 0.1, 8000), -_sine(440, 0.1, 8000)], axis=1), 8000, subtype="FLOAT")


def _make_folder(path: Path) -> None:
    path.mkdir()


def _make_nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_make_nothing, "no such file"),
        (_make_folder, "not a file"),
        (_make_text, "cannot be decoded"),
        (_make_truncated_header, "cannot be decoded|holds no samples"),
        (_make_empty, "found an empty file, expected audio"),
        (_make_pointer, "pointer of Git LFS.*`git lfs pull`"),
        (_make_no_frames, "holds no samples"),
        (_make_nan, "NaN or infinite"),
        (_make_infinite, "NaN or infinite"),
        (_make_integers_as_floats, "has a peak of 1000 times full scale, expected floats from -1 to 1"),
        (_make_enormous, "has a peak of 1e\\+30 times full scale"),
        (_make_silence, "digital silence"),
        (_make_cancelling_channels, "digital silence"),
    ],
)
def test_says_which_file_and_why(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "broken.wav"
    make(path)
    with pytest.raises(AudioError, match=reason) as caught:
        load_audio(path, 16000)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_floats_beyond_full_scale_are_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", 40 * _sine(440, 1.0, 16000), 16000, subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "loud.wav", 16000)).max() == pytest.approx(20, rel=0.01)


def test_names_that_are_not_unicode_are_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.wav")
    soundfile.write(os.fsencode(path), np.sin(np.arange(1600.0)), 16000)
    assert len(load_audio(path, 16000)) == 1600
    assert read_duration(path) == 0.1


def _stating_rate(kind: str, hertz: int) -> bytes:
    """The header of a file, with another sample rate."""
    data = bytearray(encoded(kind))
    if kind == "WAV":
        struct.pack_into("<I", data, 24, hertz)
    elif kind == "AU":
        struct.pack_into(">I", data, 16, hertz)
    else:
        struct.pack_into(">d", data, data.index(b"desc") + 12, hertz)
    return bytes(data)


@pytest.mark.parametrize("kind", ["WAV", "AU", "CAF"])
def test_rates_at_which_no_sound_is_recorded_are_refused(kind: str) -> None:
    """Resampled, 3 s of sound would be 13 hours, or a few samples."""
    for hertz in (1, 44, 1_000_000_000):
        for look in (lambda file: load_audio(file, RATE, name="clip"), lambda file: read_duration(file, "clip")):
            with pytest.raises(AudioError, match=rf"clip: .* sample rate of {hertz:,} Hz, expected 100 to 10,000,000"):
                look(io.BytesIO(_stating_rate(kind, hertz)))
    for hertz in (100, 384_000):
        assert read_duration(io.BytesIO(_stating_rate(kind, hertz))) == pytest.approx(48_000 / hertz)


def test_rates_at_which_no_sound_is_recorded_are_refused_of_what_ffmpeg_reads(
    tmp_path: Path,
) -> None:
    av = pytest.importorskip("av", reason="the extra `formats` is not installed")
    with av.open(tmp_path / "slow.tta", "w", format="tta") as container:
        stream = container.add_stream("tta", rate=50, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray(np.arange(1_000, dtype=np.int16)[None], "s16", "mono")
        frame.sample_rate = 50
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    with pytest.raises(AudioError, match=r"slow\.tta: its header states a sample rate of 50 Hz"):
        load_audio(tmp_path / "slow.tta", RATE)
