"""Files whose headers count their sound wrongly or not at all, that were joined, or that carry more than sound."""

from __future__ import annotations

import io
from pathlib import Path
from time import process_time

import numpy as np
import pytest
import soundfile
from scipy.signal import correlate

from models.audio import AudioError, load_audio, read_duration

from .encoded_audio import (
    APE,
    ID3V1,
    ID3V2,
    JUNK,
    RATE,
    SECONDS,
    assert_whole,
    constant_mp3,
    encoded,
    read,
    sound,
    uncounted_flac,
    uncounted_mp3,
    wav_of_mp3,
)

MP3_DELAY_S = 576 / RATE  # of the encoder; a decoder cuts it off where the first frame states it


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize(
    ("before", "after"), [(b"", b""), (b"", ID3V1), (b"", APE + ID3V1), (ID3V2, b""), (ID3V2, APE), (ID3V2, JUNK)]
)
def test_mp3_that_nobody_counted_is_read_whole(variable: bool, before: bytes, after: bytes) -> None:
    assert_whole(before + uncounted_mp3(variable) + after, least=0.95, delay_s=MP3_DELAY_S)


def id3(content: bytes) -> bytes:
    sizes = (len(content) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + bytes(sizes) + content


@pytest.mark.parametrize("before", [b"", ID3V2])
def test_mp3_of_free_format_is_read_whole_and_nothing_is_told(before: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Its frames have no bit rate in their headers, so that their length is not known from these."""
    frames = bytearray(constant_mp3())
    for at in range(0, len(frames), 180):
        frames[at + 2] &= 0x0F
    assert_whole(before + bytes(frames), least=0.98)
    assert not caplog.messages


@pytest.mark.parametrize("before", [b"", id3(b"picture")])
def test_frames_within_a_tag_are_no_sound(before: bytes) -> None:
    other = io.BytesIO()
    soundfile.write(other, sound(), 44_100, format="MP3")
    tagged = before + id3(other.getvalue()) + uncounted_mp3()
    np.testing.assert_array_equal(read(tagged), read(uncounted_mp3()))


@pytest.mark.parametrize("junk", [b"\xff" * 5_000_000, b"\xff\xfb\x90\x64" * 1_250_000], ids=["ones", "headers"])
@pytest.mark.parametrize("tagged", [False, True])
def test_the_search_for_frames_is_short(junk: bytes, tagged: bool) -> None:
    data = id3(junk) + uncounted_mp3() if tagged else uncounted_mp3() + junk
    started = process_time()
    assert read_duration(io.BytesIO(data)) == read_duration(io.BytesIO(uncounted_mp3()))
    assert len(read(data)) == len(read(uncounted_mp3()))
    assert process_time() - started < 3.0


def test_libsndfile_would_guess(tmp_path: Path) -> None:
    """The guess that the test above is about: without it, the special case would not be needed any more."""
    guesses = [soundfile.info(io.BytesIO(data)).frames for data in (uncounted_mp3(True), uncounted_mp3() + APE * 9)]
    assert guesses[0] < 0.9 * SECONDS * RATE
    assert guesses[1] > 1.1 * SECONDS * RATE


def test_mp3_in_wav_is_read_whole() -> None:
    assert_whole(wav_of_mp3(uncounted_mp3(variable=True)), least=0.95, delay_s=MP3_DELAY_S)


def test_mp3_with_a_count_is_read_as_libsndfile_reads_it() -> None:
    data = encoded("MP3")
    np.testing.assert_array_equal(read(data), soundfile.SoundFile(io.BytesIO(data)).read(dtype="float32"))
    assert_whole(data + ID3V1, least=0.95)


@pytest.mark.parametrize("data", [constant_mp3(), encoded("MP3")])
def test_cut_mp3_with_a_count_is_truncated(data: bytes) -> None:
    with pytest.raises(AudioError, match="clip: is truncated"):
        read(data[: len(data) * 7 // 10])


def test_flac_of_unknown_length_is_read_whole() -> None:
    np.testing.assert_allclose(read(uncounted_flac()), sound(), atol=1e-4)
    assert_whole(uncounted_flac())


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_cut_flac_of_unknown_length_is_refused(share: float) -> None:
    with pytest.raises(AudioError, match=r"clip: is truncated or damaged .*sync"):
        read(uncounted_flac()[: round(share * len(uncounted_flac()))])


@pytest.mark.parametrize("known", [False, True])
def test_flac_is_refused_at_any_damaged_bit(known: bool) -> None:
    data = encoded("FLAC") if known else uncounted_flac()
    for at in np.random.default_rng(0).integers(8_400, len(data), 100):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(AudioError, match="clip: is truncated or damaged"):
            read(bytes(damaged))


def test_a_header_that_claims_more_than_memory_holds_is_refused() -> None:
    data = bytearray(encoded("FLAC"))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    with pytest.raises(AudioError, match="clip: is truncated: 48000 samples of sound, the header says 68719476735"):
        read(bytes(data))


def flac_stating(samples: int) -> bytes:
    data = encoded("FLAC")
    return data[:22] + samples.to_bytes(4, "big") + data[26:]


@pytest.mark.parametrize("samples", [1, 24_000, 4 * 4_096, 11 * 4_096, 46_000])
def test_flac_that_counts_less_than_it_holds_is_read_whole(samples: int, caplog: pytest.LogCaptureFixture) -> None:
    assert_whole(flac_stating(samples))
    np.testing.assert_array_equal(read(flac_stating(samples) * 2), np.tile(read(encoded("FLAC")), 2))
    load_audio(io.BytesIO(flac_stating(samples)), RATE, name=f"{samples}.flac")
    assert caplog.messages[-1] == (
        f"{samples}.flac: its header counts {samples:,} samples, and there are more; they are read to the end"
    )


def test_flac_within_a_block_of_flac_is_no_sound() -> None:
    data = encoded("FLAC")
    block = b"\x02" + (4 + len(data)).to_bytes(3, "big") + b"test" + data
    within = data[:42] + block + data[42:]
    np.testing.assert_array_equal(read(within), read(data))
    np.testing.assert_array_equal(read(within + within), np.tile(read(data), 2))
    assert read_duration(io.BytesIO(within)) == SECONDS


def test_the_search_in_flac_is_short() -> None:
    data = encoded("FLAC")
    frame = data[data.index(b"\xff\xf8") :][:4]
    started = process_time()
    for junk in (b"\x01\0\0\0" * 1_000_000, (frame + b"\x0c\0") * 1_000_000):
        with pytest.raises(AudioError):
            read(data[:42] + junk)
    assert process_time() - started < 3.0


@pytest.mark.parametrize("block", [48_000, 24_000, 25_000])
def test_flac_of_unknown_length_is_read_whatever_the_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the sound ends where a block does that is decoded at once."""
    monkeypatch.setattr("models.audio._BLOCK", block)
    np.testing.assert_allclose(read(uncounted_flac()), sound(), atol=1e-4)


@pytest.mark.parametrize("data", [encoded("MP3"), encoded("WAV"), encoded("OGG", "OPUS"), encoded("FLAC")])
def test_blocks_have_no_borders(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(data)
    monkeypatch.setattr("models.audio._BLOCK", 1_000)
    np.testing.assert_array_equal(read(data), whole)


@pytest.mark.parametrize(
    ("data", "delay"),
    [
        (encoded("OGG", "VORBIS"), 0),
        (encoded("OGG", "OPUS"), 0),
        (encoded("FLAC"), 0),
        (uncounted_flac(), 0),
        (constant_mp3(), 576),
        (uncounted_mp3(), 576),
    ],
    ids=["vorbis", "opus", "flac", "uncounted flac", "mp3", "uncounted mp3"],
)
def test_joined_files_are_read_on(data: bytes, delay: int) -> None:
    heard, made = read(data + data), sound()
    at = np.flatnonzero(correlate(heard, made, "valid") > 0.88 * made @ made)
    assert len(at) == 2, "the sound is heard twice"
    assert at[0] == delay
    assert at[1] >= delay + len(made)
    assert abs(len(heard) - 2 * len(made)) < 4_000
    assert len(read(data + data, 4.0)) == 4 * RATE
    assert read_duration(io.BytesIO(data + data)) == pytest.approx(len(heard) / RATE)


def test_joined_files_that_differ_are_refused() -> None:
    other = io.BytesIO()
    soundfile.write(other, sound(), 8_000, format="OGG")
    with pytest.raises(AudioError, match="changes its sample rate or channels after byte"):
        read(encoded("OGG") + other.getvalue())


def ogg_at_48_khz(subtype: str, channels: int = 1) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.stack([sound()] * channels, axis=1), 48_000, format="OGG", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("subtypes", [("VORBIS", "OPUS"), ("OPUS", "VORBIS")])
def test_joined_ogg_of_different_codecs_is_read_on(subtypes: tuple[str, str]) -> None:
    """Such files have no length for libsndfile, which reads nothing of them and says so nowhere."""
    files = [ogg_at_48_khz(subtype) for subtype in subtypes]
    heard = [load_audio(io.BytesIO(data), 48_000) for data in files]
    np.testing.assert_array_equal(load_audio(io.BytesIO(b"".join(files)), 48_000), np.concatenate(heard))
    assert read_duration(io.BytesIO(b"".join(files))) == sum(map(len, heard)) / 48_000


@pytest.mark.parametrize("channels", [(1, 2), (2, 1)])
def test_joined_opus_of_different_channels_is_refused(channels: tuple[int, int]) -> None:
    with pytest.raises(AudioError, match="changes its sample rate or channels after byte"):
        read(b"".join(ogg_at_48_khz("OPUS", number) for number in channels))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_cut_ogg_is_truncated(subtype: str) -> None:
    data = encoded("OGG", subtype)
    cut = data[: len(data) * 7 // 10]
    with pytest.raises(AudioError, match="clip: is truncated"):
        read(cut)
    assert len(read(cut, 0.5)) == RATE // 2, "the part that is wanted is there"
    with pytest.raises(AudioError, match="clip: is truncated"):
        read(data + cut)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("after", [ID3V1, bytes(3), bytes(5_000), JUNK])
def test_what_follows_the_sound_does_not_cost_the_file(kind: str, after: bytes) -> None:
    np.testing.assert_array_equal(read(encoded(kind) + after), read(encoded(kind)))


def test_bytes_after_the_sound_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    data = encoded("OGG")
    for _ in range(2):
        load_audio(io.BytesIO(data + JUNK), RATE, name="once.ogg")
    load_audio(io.BytesIO(data + ID3V1), RATE, name="tagged.ogg")
    assert caplog.messages == ["once.ogg: 4,000 bytes after the sound are no sound and are left out"]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("share", [0.3, 0.99])
def test_ogg_with_a_damaged_page_is_refused(subtype: str, share: float) -> None:
    """Decoders pass over such a page without a word: its sound would be missing."""
    data = bytearray(encoded("OGG", subtype))
    data[int(len(data) * share)] ^= 1
    with pytest.raises(AudioError, match=r"clip: is (damaged: pages|truncated)"):
        read(bytes(data))


def long_ogg(subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.tile(sound(), 40), RATE, format="OGG", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("damage", ["bit", "mark", "removed", "zeroed"])
def test_damage_within_what_is_read_of_a_long_ogg_is_found(subtype: str, damage: str) -> None:
    data = long_ogg(subtype)
    pages = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    assert len(pages) > 20
    page = pages[len(pages) // 4]
    end = pages[len(pages) // 4 + 1]
    flipped = {"bit": end - 20, "mark": page}.get(damage)
    if flipped is None:
        changed = data[:page] + (bytes(end - page) if damage == "zeroed" else b"") + data[end:]
    else:
        changed = data[:flipped] + bytes([data[flipped] ^ 1]) + data[flipped + 1 :]
    for wanted in (None, 60.0):
        with pytest.raises(AudioError, match=r"clip: is damaged: pages are missing or damaged after 2[5-9]"):
            read(changed, wanted)
    np.testing.assert_array_equal(read(changed, 10.0), read(data, 10.0))


@pytest.mark.parametrize("after", [b"OggS" + bytes(60), b"OggS remuxed by hand" + bytes(200)])
def test_what_is_no_page_of_ogg_does_not_cost_the_file(after: bytes) -> None:
    data = encoded("OGG")
    np.testing.assert_array_equal(read(data + after), read(data))
    second = data.index(b"OggS", data.index(b"OggS", 4) + 4)
    np.testing.assert_array_equal(read(data[:second] + after + data[second:]), read(data))


def test_a_recording_of_a_running_ogg_stream_is_read() -> None:
    """It begins with the heads, and goes on with the pages that came after the recorder had joined."""
    data = long_ogg("VORBIS")
    pages = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    assert len(read(data[: pages[2]] + data[pages[20] :])) > RATE


def test_mp3_with_a_stretch_of_zeros_is_told(caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(uncounted_mp3())
    load_audio(io.BytesIO(bytes(data)), RATE, name="whole.mp3")
    assert not caplog.messages
    data[180 * 20 : 180 * 30] = bytes(180 * 10)
    load_audio(io.BytesIO(bytes(data)), RATE, name="zeros.mp3")
    assert caplog.messages == ["zeros.mp3: 1,800 bytes within the sound are no sound and are left out"]


def test_damage_in_the_first_of_two_pages_of_opus_is_found() -> None:
    """libsndfile does not open such a file, and FFmpeg passes over the damage."""
    file = io.BytesIO()
    soundfile.write(file, sound(2.0), RATE, format="OGG", subtype="OPUS")
    changed = bytearray(file.getvalue())
    changed[changed.index(b"OggS", changed.index(b"OpusTags")) + 200] ^= 1
    for look in (read, lambda data: read_duration(io.BytesIO(data), "clip")):
        with pytest.raises(AudioError, match="clip: is damaged: pages are missing or damaged"):
            look(bytes(changed))


def sealed(page: bytes) -> bytes:
    """An Ogg page with its checksum, bit by bit as RFC 3533 has it."""
    checksum = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum >> 31 else 0)) & 0xFFFFFFFF
    return page[:22] + checksum.to_bytes(4, "little") + page[26:]


def test_damage_after_an_ogg_page_in_which_nothing_ends_is_where_it_is() -> None:
    """Such a page has the position -1."""
    data = long_ogg("VORBIS")
    starts = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    pages = [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]
    assert all(sealed(page) == page for page in pages[:4])
    middle = len(pages) // 2
    pages[middle - 1] = sealed(pages[middle - 1][:6] + b"\xff" * 8 + pages[middle - 1][14:])
    changed = b"".join(pages[:middle] + pages[middle + 1 :])
    np.testing.assert_array_equal(read(changed, 10.0), read(data, 10.0))
    with pytest.raises(AudioError, match=r"clip: is damaged: pages are missing or damaged after 5\d\.\d s"):
        read(changed)
