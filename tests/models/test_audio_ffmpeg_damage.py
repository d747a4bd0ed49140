"""What FFmpeg decodes, but is cut, damaged, joined to another file or followed by what is no sound."""

from __future__ import annotations

import io
import re
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from models.audio import AudioError, load_audio, read_duration
from models.audio_notes import note

from .encoded_audio import ID3V1

av = pytest.importorskip("av", reason="the extra `formats` is not installed")

RATE = 48_000
SECONDS = 4.0
_APE = b"APETAGEX" + struct.pack("<II", 2_000, 932)  # its size is that of what follows the header
APE = _APE + bytes(16) + b"\x05" * 900 + _APE + bytes(16)
AMR = b"#!AMR\n" + (b"\x3c" + bytes(range(1, 32))) * 200  # frames of 20 ms


@cache
def encoded(container: str, codec: str, **options: str) -> bytes:
    """Return noise as FFmpeg writes it."""
    noise = np.random.default_rng(0).normal(0, 0.1, (1, round(RATE * SECONDS))).astype(np.float32)
    with TemporaryDirectory() as folder:
        path = Path(folder, "clip")
        with av.open(str(path), "w", format=container, options=options) as file:
            stream = file.add_stream(codec, rate=RATE, layout="mono")
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            for part in (frame, None):
                for packet in stream.encode(part):
                    file.mux(packet)
        return path.read_bytes()


def read(data: bytes) -> np.ndarray:
    note.cache_clear()
    return load_audio(io.BytesIO(data), RATE, name="clip")


def length(data: bytes) -> float:
    return read_duration(io.BytesIO(data), name="clip")


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :]


def with_hole(data: bytes, size: int = 3_000) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(size) + data[middle + size :]


@pytest.mark.parametrize("share", [0.7, 0.95, 0.99])
def test_ogg_of_flac_is_truncated_without_its_end_mark(share: float) -> None:
    data = encoded("ogg", "flac")
    with pytest.raises(AudioError, match="clip: is truncated: its last page is not marked as the end"):
        read(data[: int(len(data) * share)])


def test_ogg_of_flac_with_a_page_that_is_damaged_is_refused() -> None:
    with pytest.raises(AudioError, match=r"clip: is (truncated or )?damaged: "):
        read(flipped(encoded("ogg", "flac")))


def test_ogg_of_flac_that_was_joined_is_read_on(caplog: pytest.LogCaptureFixture) -> None:
    one = encoded("ogg", "flac")
    np.testing.assert_array_equal(read(one + one), np.tile(read(one), 2))
    assert length(one + one) == pytest.approx(2 * SECONDS)
    assert not caplog.records
    np.testing.assert_array_equal(read(one + b"junk" * 99), read(one))
    assert "clip: 396 bytes after the sound are no sound and are left out" in caplog.text


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "adpcm_g722"), ("wav", "adpcm_yamaha"), ("w64", "adpcm_yamaha"), ("au", "adpcm_g722")],
)
@pytest.mark.parametrize("share", [0.6, 0.95])
def test_a_header_that_counts_bytes_shows_a_cut(container: str, codec: str, share: float) -> None:
    data = encoded(container, codec)
    assert len(read(data)) == pytest.approx(SECONDS * RATE, rel=0.02)
    with pytest.raises(AudioError, match=r"clip: is truncated: [\d,]+ bytes, the header says [\d,]+"):
        read(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    "data",
    [
        encoded("mpegts", "aac", output_ts_offset="5000"),
        encoded("matroska", "aac", output_ts_offset="600"),
        encoded("mpeg", "mp2"),
        encoded("matroska", "libmp3lame", live="1"),
    ],
    ids=["mpegts", "matroska", "mpeg", "live"],
)
def test_the_length_is_that_of_the_sound(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert len(read(data)) / RATE == pytest.approx(SECONDS, abs=0.1)
    assert length(data) == pytest.approx(SECONDS, abs=0.1)
    assert not caplog.records


@pytest.mark.parametrize("codec", ["wavpack", "tta", "ac3", "eac3"])
def test_a_frame_that_does_not_fit_its_checksum_is_damaged(codec: str) -> None:
    data = encoded("wv" if codec == "wavpack" else codec, codec)
    with pytest.raises(AudioError, match=r"clip: is truncated or damaged: what follows \d\.\d s cannot be decoded"):
        read(flipped(data))


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("mpegts", "libopus")])
def test_what_is_missing_by_the_times_is_said(container: str, codec: str, caplog: pytest.LogCaptureFixture) -> None:
    options = {"live": "1"} if container == "webm" else {}
    whole = encoded(container, codec, **options)
    heard = read(whole)
    assert not caplog.records
    assert len(read(with_hole(whole))) < len(heard)
    said = r"clip: by its times, \d\.\d\d s of sound are missing, the first after [12]\.\d s; what is there is read"
    assert re.search(said, caplog.text)


def test_amr_with_a_hole_is_damaged() -> None:
    assert length(AMR) == pytest.approx(4.0)
    for damaged in (with_hole(AMR), AMR + b"junk" * 9, AMR[:3_000] + AMR[3_001:]):
        with pytest.raises(AudioError, match=r"clip: is truncated or damaged: no sound follows byte [\d,]+, expected"):
            read(damaged)


@pytest.mark.parametrize(
    "data",
    [
        encoded("ipod", "aac"),
        encoded("mov", "alac"),
        encoded("mp4", "aac", movflags="frag_keyframe+empty_moov"),
        encoded("flv", "aac"),
        encoded("tta", "tta"),
        encoded("wv", "wavpack"),
        encoded("avi", "ac3"),
        encoded("asf", "libmp3lame"),
        encoded("webm", "libopus"),
        encoded("webm", "libopus", live="1"),
        AMR,
    ],
    ids=["m4a", "mov", "fragments", "flv", "tta", "wv", "avi", "wma", "webm", "live", "amr"],
)
def test_files_that_were_joined_are_refused(data: bytes) -> None:
    for function in (read, length):
        with pytest.raises(
            AudioError, match=rf"clip: another file was joined to it after byte {len(data):,}; split it there"
        ):
            function(data + data)


@pytest.mark.parametrize("behind", [ID3V1, APE, APE + ID3V1, bytes(11), bytes(1_000)])
@pytest.mark.parametrize(
    "data",
    [
        encoded("ac3", "ac3"),
        encoded("eac3", "eac3"),
        encoded("wv", "wavpack"),
        encoded("mpegts", "mp2"),
        encoded("ipod", "aac"),
        encoded("flv", "aac"),
        encoded("tta", "tta"),
        AMR,
    ],
    ids=["ac3", "eac3", "wv", "ts", "m4a", "flv", "tta", "amr"],
)
def test_tags_and_zeros_behind_the_sound_do_not_matter(data: bytes, behind: bytes) -> None:
    np.testing.assert_array_equal(read(data + behind), read(data))
    assert length(data + behind) == length(data)


@pytest.mark.parametrize("error", [av.error.PermissionError, av.error.BlockingIOError, av.error.UndefinedError])
def test_words_of_ffmpeg_that_say_nothing_are_left_out(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error(1, "Operation not permitted")

    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(AudioError, match=r"clip: cannot be decoded as audio \(its content is damaged\)"):
        length(AMR)
