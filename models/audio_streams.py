"""Find all sound in a file whose header counts it wrongly or not at all, such as MP3, or that was joined of several."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from mmap import mmap

from .errors import AudioError

# Kilobits a second by the index in a frame's header (ISO 11172-3 and 13818-3, 2.4.2.3), by (is it MPEG-1, layer).
_LOW_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBPS = {
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): _LOW_KBPS,
    (False, 3): _LOW_KBPS,
}
_RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG-1; halved in MPEG-2 and halved again in 2.5
_COUNT = re.compile(rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f]|VBRI")  # odd flags: frames are counted
_COUNT_WITHIN = 64  # bytes of a frame's beginning
_CHAIN = 3  # frames in a row that are no accident
_RATED = bytes(byte for byte in range(256) if 0 < byte >> 4 < 15 and byte >> 2 & 3 < 3)  # with a bit and a sample rate
_HEADER = re.compile(rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][" + re.escape(_RATED) + rb"]")  # what `_described` takes
_ATTEMPTS = 50_000  # headers without other frames behind them after which no sound is looked for any more
_ID3_HEADER = 10  # bytes, and of its footer
_DELAY = 3_000  # samples, at most, that decoders take off both ends together, as delay and padding
_NOT_AUDIO = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # what players look for after the sound
_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# Pages, of a second or so, that may be lost after the heads: who joins a running stream later has its heads, and then
# what was heard.
_JOINED_LATE = 10
_SOUND_HEADS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_CHUNK_ID = re.compile(rb"[A-Za-z0-9 ]{4}")


Content = bytes | mmap  # of a file: read, or mapped


@dataclass(frozen=True)
class Part:
    """The bytes `start` to `end` of a file, a file by themselves; `ended` unless its end mark is missing."""

    start: int
    end: int
    ended: bool = True
    lost_after: int | None = None  # samples, at least, before the first that are missing within it


def bytes_after(data: Content, end: int) -> int:
    """Return the number of bytes after a place in a file, 0 if they are tags or zeros."""
    rest = data[end:]
    return 0 if rest.startswith(_NOT_AUDIO) or not rest.strip(b"\0") else len(rest)


def _bytes_of_no_tag(data: Content, start: int, end: int) -> int:
    """Return the number of bytes between two places, 0 if a tag begins there, as where files were joined."""
    return 0 if data[start : start + 16].startswith(_NOT_AUDIO) else end - start


# --- MPEG audio: MP3 and MP2 ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MpegStream:
    """The sound in a file: the samples of its frames, per channel, and where the last one ends.

    `counted` is the stream alone, with a header that counts its frames; None if the file's own header does. `between`
    are the bytes between frames that are none.
    """

    samples: int
    end: int
    counted: bytes | None
    between: int


@dataclass(frozen=True)
class _Frame:
    start: int
    end: int
    samples: int
    kind: tuple[int, int, bool]  # version and layer, sample rate, mono


def counts_frames(data: Content) -> bool:
    """Return whether the first frame of MPEG audio is a Xing, Info or VBRI frame, which counts the others."""
    first = next(_frames(data), None)
    return first is not None and _is_count(data, first)


def mpeg_stream(data: Content, name: str, stated: int, wanted: int) -> MpegStream:
    """Find the frames of MPEG audio (ISO 11172-3, 2.4.1) among tags, containers and damage.

    Args:
        data: the file.
        name: of the file in error messages.
        stated: samples by the decoder's reading of the header, a guess where no Xing, Info or VBRI frame counts them.
        wanted: samples after which to stop.

    Raises:
        AudioError: sample rate or number of channels change, which no decoder reads as one sound.
    """
    frames: list[_Frame] = []
    headers, samples, between, last = [], 0, 0, 0
    for frame in _frames(data):
        if last:
            between += _bytes_of_no_tag(data, last, frame.start)
        last = frame.end
        if _is_count(data, frame):
            headers.append(frame)
            continue
        if frames and frame.kind[1:] != frames[0].kind[1:]:
            raise AudioError(f"{name}: changes its sample rate or channels after byte {frame.start:,}; split it there")
        frames.append(frame)
        samples += frame.samples
        if samples >= wanted + _DELAY:
            break
    end = max((frame.end for frame in (*frames[-1:], *headers[-1:])), default=0)
    # More than the first header counts are files that were joined.
    right = not frames or (bool(headers) and headers[0].start < frames[0].start and samples <= stated + _DELAY)
    return MpegStream(samples, end, None if right else _counted(data, frames), between)


def _is_count(data: Content, frame: _Frame) -> bool:
    return bool(_COUNT.search(data, frame.start, min(frame.start + _COUNT_WITHIN, frame.end)))


def _counted(data: Content, frames: list[_Frame]) -> bytes:
    """Return the frames alone; of MP3, after a silent one that holds their number, as Xing's encoder writes it."""
    sound = b"".join(data[frame.start : frame.end] for frame in frames)
    first = bytearray(data[frames[0].start : frames[0].start + 4])
    version, layer = first[1] >> 3 & 3, 4 - (first[1] >> 1 & 3)
    if layer != 3:  # decoders know no such header there, and the rate is constant: the count by bytes is right
        return sound
    first[1] |= 1  # no checksum
    first[2] = first[2] & 0x0C | 0x90  # a bit rate at which the frame has room
    side_bytes = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}
    at = 4 + side_bytes[version == 3, frames[0].kind[2]]
    header = _frame(bytes(first), 0)
    assert header
    count = b"Info" + struct.pack(">II", 1, len(frames))
    return (bytes(first) + bytes(at - 4) + count).ljust(header.end, b"\0") + sound


def _frames(data: Content) -> Iterator[_Frame]:
    last: _Frame | None = None
    while True:
        at = last.end if last else 0
        frame = _frame(data, at)
        if not frame or not last or frame.kind != last.kind:
            frame = _next_chain(data, at)
        if not frame or frame.end > len(data):
            return
        yield frame
        last = frame


def _next_chain(data: Content, at: int) -> _Frame | None:
    """Return the first frame, at a place or after it, that others of its kind follow."""
    for header in islice(_HEADER.finditer(data, _after_id3(data, at)), _ATTEMPTS):
        chain = [_frame(data, header.start())]
        while chain[-1] and len(chain) < _CHAIN:
            chain.append(_frame(data, chain[-1].end))
        if len({frame and frame.kind for frame in chain}) == 1 and chain[0]:
            return chain[0]
    return None


def _after_id3(data: Content, at: int) -> int:
    """Return where the ID3v2 tags end that are at a place (https://id3.org/id3v2.4.0-structure, 3.1)."""
    while data[at : at + 3] == b"ID3" and max(data[at + 6 : at + _ID3_HEADER], default=0x80) < 0x80:
        size = 0
        for seven_bits in data[at + 6 : at + _ID3_HEADER]:
            size = size << 7 | seven_bits
        has_footer = bool(data[at + 5] & 0x10)
        at += _ID3_HEADER + size + has_footer * _ID3_HEADER
    return at


def _frame(data: Content, at: int) -> _Frame | None:
    """Return the frame that the four bytes at a place are the header of, None if they are not."""
    header = data[at : at + 4]
    described = _described(header) if len(header) == 4 and header[0] == 0xFF and header[1] >= 0xE0 else None
    if described is None:
        return None
    size, samples, kind = described
    return _Frame(at, at + size, samples, kind)


@lru_cache(maxsize=4096)
def _described(header: bytes) -> tuple[int, int, tuple[int, int, bool]] | None:
    """Return bytes, samples and kind of the frame with a header."""
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)  # version 3 is MPEG-1, 2 is MPEG-2, 0 is 2.5
    bit_rate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer not in (2, 3) or not 0 < bit_rate < 15 or rate == 3:
        return None
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 576 if layer == 3 and version != 3 else 1152
    size = samples // 8 * _KBPS[version == 3, layer][bit_rate - 1] * 1000 // hertz + (header[2] >> 1 & 1)
    return size, samples, (header[1] & 0x1E, hertz, header[3] >> 6 == 3)


# --- Ogg, FLAC, WAV ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Page:
    """An Ogg page that fits its checksum (RFC 3533, 6)."""

    start: int
    end: int
    flags: int  # 2: its stream begins, 4: its stream ends
    granule: int  # of what ends in it: for sound, samples since the stream's beginning; 0 in heads
    serial: int  # of its stream
    number: int  # in its stream
    is_sound: bool  # of a stream that begins with it


def ogg_parts(data: Content, enough: float = math.inf) -> list[Part]:
    """Return the files that were joined to an Ogg file (RFC 3533, 4 and 6), one part if it is a single one.

    A part begins with pages that begin streams; it has ended if any of its streams has a page that says so. A page of
    sound is missing where the next one has not the next number: decoders pass over what does not fit its checksum.

    Args:
        data: the file.
        enough: samples by the file's own count, of a part, after which no more is looked at.
    """
    parts: list[Part] = []
    start, ended, beginning, end, lost = 0, False, True, 0, None
    numbers: dict[int, int] = {}  # of the last page, by stream of sound in this part
    first = position = 0  # where the sound of the first page and of the last one ends; 0 before any
    for page in _ogg_pages(data):
        begins = bool(page.flags & 2)
        if begins and not beginning:
            parts.append(Part(start, page.start, ended, lost))
            start, ended, lost, numbers, first, position = page.start, False, None, {}, 0, 0
        beginning, ended, end = begins, ended or bool(page.flags & 4), page.end
        if page.is_sound or page.serial in numbers:
            due = numbers.get(page.serial, page.number - 1) + 1
            if lost is None and page.number != due and (position or due < page.number < due + _JOINED_LATE):
                lost = position - first
            numbers[page.serial] = page.number
            if page.granule > 0:  # -1 where nothing ends in it
                first, position = first or page.granule, page.granule
        if position - first > enough:
            break
    return [*parts, Part(start, end, ended, lost)]


def _ogg_pages(data: Content) -> Iterator[_Page]:
    at = data.find(b"OggS")
    while at >= 0 and len(data) >= at + 27:
        segments = data[at + 26]
        body = at + 27 + segments
        end = body + sum(data[at + 27 : body])
        if end <= len(data) and not data[at + 4] and _fits_checksum(data[at:end]):
            granule, serial, number = struct.unpack_from("<qII", data, at + 6)
            flags = data[at + 5]
            yield _Page(at, end, flags, granule, serial, number, data[body : body + 8].startswith(_SOUND_HEADS))
            at = data.find(b"OggS", end)
        else:
            at = data.find(b"OggS", at + 1)


def _fits_checksum(page: bytes) -> bool:
    """Return whether an Ogg page has its checksum (RFC 3533, 6: CRC of 0x04c11db7, over the page without it).

    zlib's CRC is of the same polynomial, but takes and gives bits in the other order, and inverts them first and last.
    """
    found = zlib.crc32((page[:22] + bytes(4) + page[26:]).translate(_BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return found.to_bytes(4, "big").translate(_BITS_REVERSED) == page[22:26]


def flac_parts(data: Content) -> list[Part]:
    """Return the files that were joined to a FLAC file (RFC 9639, 8), one part if it is a single one."""
    begins = [match.start() for match in re.finditer(rb"fLaC[\x00\x80]\0\0\x22", data)] or [0]
    return [Part(start, end) for start, end in zip(begins, [*begins[1:], len(data)], strict=True)]


def sized_wav(data: Content) -> bytes | None:
    """Return a WAV whose header gives its sound no bytes, although it is there, with the right size; None if it is not.

    Recorders that are switched off write the size last.
    """
    at = 12
    while len(data) >= at + 8:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            behind = data[at + 8 :]
            is_chunk = _CHUNK_ID.match(behind) and 8 + int.from_bytes(behind[4:8], "little") <= len(behind)
            return (
                None if size or not behind or is_chunk else data[: at + 4] + len(behind).to_bytes(4, "little") + behind
            )
        at += 8 + size + size % 2
    return None
