"""Windows of a long recording are the stretches that they say, each as a file of its own, in memory for one of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from models import audio
from models.audio import AudioError
from models.audio_sources import Recording
from models.errors import InputError
from models.long_audio import AudioWindow, Windowing, cut

RATE = 8_000


def noise(seconds: float, channels: int = 1) -> np.ndarray:
    """Return samples [time, channels] of 16 bits, no two stretches alike."""
    rng = np.random.default_rng(0)
    return rng.integers(-20_000, 20_000, (round(seconds * RATE), channels)).astype(np.int16)


def recording(path: Path, samples: np.ndarray, **options: Any) -> Recording:
    with soundfile.SoundFile(path, "w", RATE, samples.shape[1], **options) as file:
        for at in range(0, len(samples), RATE):  # libsndfile crashes on minutes of Ogg at once
            file.write(samples[at : at + RATE])
    return Recording.of(path, "")


def spans(windows: Iterable[AudioWindow]) -> list[tuple[float, float]]:
    return [(window.start_s, window.end_s) for window in windows]


@pytest.mark.parametrize(
    ("seconds", "window_s", "hop_s", "expected"),
    [
        (5.0, 2.0, 1.0, [(0, 2), (1, 3), (2, 4), (3, 5)]),
        (5.0, 2.0, 2.0, [(0, 2), (2, 4), (3, 5)]),  # the last one is moved back to end with the recording
        (4.5, 2.0, 0.75, [(0, 2), (0.75, 2.75), (1.5, 3.5), (2.25, 4.25), (2.5, 4.5)]),
        (4.05, 2.0, 2.0, [(0, 2), (2, 4)]),  # what an encoder adds to 4 s
        (2.0, 2.0, 2.0, [(0, 2)]),
        (1.25, 2.0, 1.0, [(0, 1.25)]),
        (0.05, 2.0, 1.0, [(0, 0.05)]),
    ],
)
@pytest.mark.parametrize("block", [2**20, 777], ids=["one block", "many blocks"])
def test_windows_are_equally_long_and_the_last_one_ends_with_the_recording(
    tmp_path: Path,
    seconds: float,
    window_s: float,
    hop_s: float,
    expected: list[tuple[float, float]],
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audio, "_BLOCK", block)
    samples, windowing = noise(seconds), Windowing(window_s, hop_s)
    windows = list(cut(recording(tmp_path / "a.wav", samples), windowing))
    assert spans(windows) == expected
    assert windowing.number(seconds) == len(expected)
    for window in windows:
        stretch = samples[round(window.start_s * RATE) : round(window.end_s * RATE), 0] / np.float32(2**15)
        np.testing.assert_array_equal(window.recording.samples(RATE, 10.0), stretch)


def test_a_window_is_heard_as_the_file_that_was_cut_by_hand(tmp_path: Path) -> None:
    samples = noise(3.0, channels=2)
    _, window, _ = cut(recording(tmp_path / "a.flac", samples), Windowing(1.0, 1.0))
    by_hand = recording(tmp_path / "cut.wav", samples[RATE : 2 * RATE])
    np.testing.assert_array_equal(window.recording.samples(16_000, 10.0), by_hand.samples(16_000, 10.0))
    assert window.recording.duration_s() == 1.0
    assert window.recording.name == f"{tmp_path}/a.flac from 1.0 s to 2.0 s"


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_memory_does_not_grow_with_the_length(tmp_path: Path, suffix: str) -> None:
    def most(seconds: float) -> int:
        long = recording(tmp_path / f"{seconds}.{suffix}", np.tile(noise(5.0), (round(seconds / 5), 1)))
        tracemalloc.start()
        for window in cut(long, Windowing(2.0, 2.0)):
            assert window.recording
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    samples_added = 4 * RATE * 150
    assert most(300) - most(150) < samples_added / 5


def test_silent_windows_are_left_out_and_a_silent_recording_is_refused(tmp_path: Path) -> None:
    samples = noise(4.0)
    samples[RATE : 3 * RATE] = 0
    assert spans(cut(recording(tmp_path / "a.wav", samples), Windowing(1.0, 1.0))) == [(0, 1), (3, 4)]
    with pytest.raises(AudioError, match=r"b\.wav: is digital silence \(every sample is 0\)"):
        list(cut(recording(tmp_path / "b.wav", 0 * samples), Windowing(1.0, 1.0)))


def test_damage_is_told_where_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_BLOCK", RATE)
    damaged = noise(3.0).astype(np.float32) / 2**15
    damaged[-5] = np.nan
    with pytest.raises(AudioError, match=r"a\.wav: holds NaN"):
        list(cut(recording(tmp_path / "a.wav", damaged, subtype="FLOAT"), Windowing(1.0, 1.0)))
    recording(tmp_path / "b.flac", noise(60.0))
    (tmp_path / "c.flac").write_bytes((tmp_path / "b.flac").read_bytes()[:200_000])
    windows = cut(Recording.of(tmp_path / "c.flac", ""), Windowing(1.0, 1.0))
    assert next(windows).end_s == 1.0
    with pytest.raises(AudioError, match=r"c\.flac: is truncated"):
        list(windows)
    with pytest.raises(AudioError, match="holds no samples"):
        list(cut(recording(tmp_path / "d.wav", noise(0.0)), Windowing(1.0, 1.0)))
    with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        list(cut(Recording.of("gone.wav", ""), Windowing(1.0, 1.0)))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_windows_before_a_broken_end_are_kept(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    recording(path, noise(20.0))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    ends, windows = [0.0], cut(Recording.of(path, ""), Windowing(0.5, 0.5))
    with pytest.raises(AudioError, match="is truncated"):
        ends.extend(window.end_s for window in windows)
    block_s = audio._BLOCK / RATE
    assert 20 * share - block_s - 1 < ends[-1] <= 20 * share


def test_the_length_of_cut_flac_that_does_not_state_it_is_what_can_be_heard(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    recording(path, noise(20.0))
    content = bytearray(path.read_bytes()[: path.stat().st_size // 2])
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert 10 - audio._BLOCK / RATE - 1 < audio.read_duration(path) < 10.1
    path.write_bytes(content[:100])
    with pytest.raises(AudioError, match="is truncated"):
        audio.read_duration(path)


def test_what_is_asked_for_is_checked() -> None:
    assert Windowing.of(None, None, 30.0) is None
    assert Windowing.of(10, None, 30.0) == Windowing(10.0, 10.0)
    assert Windowing.of(np.float64(10), 5, 10.0) == Windowing(10.0, 5.0)


@pytest.mark.parametrize(
    ("window_s", "hop_s", "message"),
    [
        (None, 5.0, "hop_s: found 5.0 without window_s"),
        (31.0, None, "window_s: found 31.0, expected seconds from 0.1 to 30, what is heard of a clip"),
        (0.0, None, "window_s: found 0.0"),
        (-1, None, "window_s: found -1"),
        (float("nan"), None, "window_s: found nan"),
        (float("inf"), None, "window_s: found inf"),
        ("10", None, "window_s: found '10'"),
        (True, None, "window_s: found True"),
        (10.0, 11.0, "hop_s: found 11.0, expected seconds from 0.1 to 10, the length of a window"),
        (10.0, 0, "hop_s: found 0"),
        (10.0, [5], r"hop_s: found \[5\]"),
    ],
)
def test_what_cannot_be_done_names_the_argument(window_s: Any, hop_s: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Windowing.of(window_s, hop_s, 30.0)
