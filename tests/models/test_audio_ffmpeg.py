"""Formats that libsndfile does not know, with PyAV and without."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import models
from models.audio import AudioError, load_audio, read_duration

av = pytest.importorskip("av", reason="the extra `formats` is not installed")

SECONDS = 2.0
FORMATS = {  # suffix: FFmpeg's names of container and codec, sample rate in Hz
    "m4a": ("ipod", "aac", 16_000),
    "mp4": ("mp4", "aac", 44_100),
    "aac": ("adts", "aac", 16_000),
    "webm": ("webm", "libopus", 48_000),
    "mka": ("matroska", "aac", 16_000),
    "caf": ("caf", "adpcm_ima_qt", 16_000),
    "wma": ("asf", "wmav2", 16_000),
    "avi": ("avi", "pcm_s16le", 16_000),
    "divx": ("avi", "mp3", 44_100),
    "flv": ("flv", "mp3", 44_100),
    "ac3": ("ac3", "ac3", 44_100),
    "eac3": ("eac3", "eac3", 48_000),
}
each_format = pytest.mark.parametrize("suffix", FORMATS)


def sound(rate: int) -> np.ndarray:
    """Return two channels, a tone and its half."""
    time = np.arange(round(rate * SECONDS)) / rate
    left = 0.4 * np.sin(2 * np.pi * 440 * time) * np.minimum(1, time)
    return np.stack([left, left / 2]).astype(np.float32)


def write(path: Path, rate: int | None = None, layout: str = "stereo", title: str = "", movflags: str = "") -> Path:
    container, codec, usual = FORMATS[path.suffix[1:]]
    rate = rate or usual
    with av.open(str(path), "w", format=container, options={"movflags": movflags} if movflags else {}) as file:
        file.metadata["title"] = title
        stream = file.add_stream(codec, rate=rate, layout=layout, bit_rate=96_000)
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.codec_context.format, layout, rate, frame_size=size)
        frame = av.AudioFrame.from_ndarray(sound(rate), format="fltp", layout="stereo")
        frame.sample_rate = rate
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            for packet in stream.encode(part):
                file.mux(packet)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.SoundFile(path)
    return path


@each_format
def test_reads_what_libsndfile_does_not(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"clip.{suffix}")
    rate = FORMATS[suffix][2]
    made = sound(rate).mean(axis=0)
    heard = load_audio(path, rate)
    assert abs(len(heard) / rate - SECONDS) < 0.2
    assert read_duration(path) == pytest.approx(len(heard) / rate, abs=0.1)
    best = max(np.corrcoef(heard[at:][:20_000], made[:20_000])[0, 1] for at in range(0, 4_200))
    assert best > 0.99, "but for the delay of the codec, what was written"
    np.testing.assert_array_equal(load_audio(path, rate, max_duration_s=0.5), heard[: rate // 2])
    with path.open("rb") as file:
        np.testing.assert_array_equal(load_audio(file, rate), heard)


def test_caf_that_was_written_to_a_pipe_is_whole(tmp_path: Path) -> None:
    """Its size is -1, for which libsndfile calls it malformed; its last packet is shorter than FFmpeg asks for."""
    path = tmp_path / "pipe.caf"
    soundfile.write(path, sound(16_000).T, 16_000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    np.testing.assert_allclose(load_audio(path, 16_000), sound(16_000).mean(axis=0), atol=1e-4)


def test_avi_that_was_written_to_a_pipe_is_whole(tmp_path: Path) -> None:
    """FFmpeg gives it 2^30 samples."""
    path = tmp_path / "pipe.avi"
    expected = write_channels(path, "stereo")
    content = bytearray(path.read_bytes())
    at = content.index(b"strh") + 8 + 32
    assert int.from_bytes(content[at : at + 4], "little") == len(expected)
    content[at : at + 4] = (2**30).to_bytes(4, "little")
    path.write_bytes(content)
    np.testing.assert_allclose(load_audio(path, 16_000), expected, atol=1e-6)
    assert read_duration(path) == 0.5


def write_channels(path: Path, layout: str) -> np.ndarray:
    """Write noise, another in each channel of a layout, and return its average over the channels."""
    channels = len(av.AudioLayout(layout).channels)
    made = np.random.default_rng(0).normal(0, 0.1, (8_000, channels)).astype(np.float32)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_f32le", rate=16_000, layout=layout)
        frame = av.AudioFrame.from_ndarray(made.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = 16_000
        file.mux([*stream.encode(frame), *stream.encode(None)])
    average: np.ndarray = made.mean(axis=1)
    return average


@pytest.mark.parametrize("layout", ["7.1", "hexadecagonal", "22.2"])
def test_all_channels_of_many_are_heard(layout: str, tmp_path: Path) -> None:
    expected = write_channels(tmp_path / "many.mkv", layout)
    np.testing.assert_allclose(load_audio(tmp_path / "many.mkv", 16_000), expected, atol=1e-6)


@pytest.mark.parametrize(("suffix", "tag_at"), [("mov", 8), ("caf", 12)])
@pytest.mark.parametrize(("layout", "tag"), [("5.1", 122 << 16 | 6), ("6.1", 125 << 16 | 7), ("7.1", 126 << 16 | 8)])
def test_channels_in_an_order_of_the_files_own(layout: str, tag: int, suffix: str, tag_at: int, tmp_path: Path) -> None:
    """Apple's MPEG_5_1_B, MPEG_6_1_A and MPEG_7_1_A: PyAV frees the list of such places twice, which ends Python."""
    path = tmp_path / f"ordered.{suffix}"
    expected = write_channels(path, layout)
    content = bytearray(path.read_bytes())
    at = content.index(b"chan") + tag_at
    content[at : at + 4] = tag.to_bytes(4, "big")
    path.write_bytes(content)
    for _ in range(3):  # what is freed twice may not end the process at once
        np.testing.assert_allclose(load_audio(path, 16_000), expected, atol=1e-6)


def test_a_name_that_lies_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.m4a").rename(tmp_path / "clip.wav")
    assert abs(len(load_audio(path, 16_000)) / 16_000 - SECONDS) < 0.2


@each_format
@pytest.mark.parametrize("share", [0.7, 0.85])
def test_a_cut_file_is_truncated(tmp_path: Path, suffix: str, share: float) -> None:
    path = write(tmp_path / f"clip.{suffix}", movflags="faststart" if suffix in {"m4a", "mp4"} else "")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(AudioError, match=rf"clip\.{suffix}: (is truncated|cannot be decoded)"):
        load_audio(path, 16_000)


def test_a_list_of_other_files_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "secret.aac")
    (tmp_path / "clip.wav").write_text("ffconcat version 1.0\nfile secret.aac\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioError, match="cannot be decoded"):
        load_audio("clip.wav", 16_000)


@pytest.mark.parametrize("suffix", ["m4a", "webm"])
def test_tags_that_are_not_unicode_do_not_matter(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"clip.{suffix}", title="caf__QQ")
    assert b"caf__QQ" in path.read_bytes()
    heard = load_audio(path, 16_000)
    path.write_bytes(path.read_bytes().replace(b"caf__QQ", b"caf\xe9 \xfc!"))
    np.testing.assert_array_equal(load_audio(path, 16_000), heard)
    assert read_duration(path) == pytest.approx(SECONDS, abs=0.1)


def test_a_codec_that_ffmpeg_does_not_know_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.webm")
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_XXXX"))
    for function in (lambda: load_audio(path, 16_000), lambda: read_duration(path)):
        with pytest.raises(AudioError, match=r"clip\.webm: cannot be decoded .*does not know its codec"):
            function()


@pytest.mark.parametrize(("rate", "layout"), [(22_050, "stereo"), (16_000, "mono")])
@pytest.mark.parametrize("swapped", [False, True])
def test_joined_files_that_differ_are_refused(tmp_path: Path, rate: int, layout: str, swapped: bool) -> None:
    files = [write(tmp_path / "a.aac").read_bytes(), write(tmp_path / "b.aac", rate, layout).read_bytes()]
    (tmp_path / "clip.aac").write_bytes(b"".join(files[::-1] if swapped else files))
    with pytest.raises(
        AudioError, match=r"clip\.aac: changes its sample rate or channels after 2\.\d s; split it there"
    ):
        load_audio(tmp_path / "clip.aac", 16_000)
    assert len(load_audio(tmp_path / "clip.aac", 16_000, max_duration_s=1.0)) == 16_000, "what is wanted comes before"


@pytest.mark.parametrize("error", [ValueError("odd"), AttributeError("odd"), MemoryError(), av.FFmpegError(-5, "odd")])
@pytest.mark.parametrize("function", [lambda path: load_audio(path, 16_000), read_duration])
def test_whatever_a_decoder_raises_names_the_file(
    tmp_path: Path, error: Exception, function: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    path = write(tmp_path / "clip.m4a")
    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(AudioError, match=r"clip\.m4a: cannot be decoded as audio \((odd|MemoryError)\)"):
        function(path)


@each_format
def test_without_pyav_the_error_names_the_extra(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / f"clip.{suffix}")
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "models.audio_ffmpeg", raising=False)
    monkeypatch.delattr(models, "audio_ffmpeg", raising=False)
    for function in (lambda: load_audio(path, 16_000), lambda: read_duration(path)):
        with pytest.raises(AudioError, match=rf"clip\.{suffix}: cannot be decoded .*install the extra `formats`"):
            function()
