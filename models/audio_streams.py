"""Find the files that were joined to one of Ogg or FLAC, and what is missing in them."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from .audio_bytes import Content, matches

NOT_AUDIO = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # what players look for after the sound
_NOT_ZERO = re.compile(rb"[^\0]")
_ID3_HEADER = 10  # bytes, and of its footer
_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# Pages, of a second or so, that may be lost after the heads: who joins a running stream later has its heads, and then
# what was heard.
_JOINED_LATE = 10
_SOUND_HEADS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
OPUS_HZ = 48_000  # of positions in Opus, whatever the rate of its sound
_OGG = re.compile(b"OggS")
_FLAC = re.compile(rb"fLaC[\x00\x80]\0\0\x22")  # with the head of the block that is the first of all
_FLAC_BEGINNING = 26  # bytes, with all that the first block states but a checksum
_FLAC_SAMPLES = 2**36 - 1  # of the bits that hold rate, channels and samples: the samples, 0 if they are not known
_FLAC_FRAME = b"\xff\xf8"  # begins a frame, in a stream whose frames have one size and are numbered
_FLAC_SIZES = (0, 192, *(576 << n for n in range(4)), 0, 0, *(256 << n for n in range(8)))  # of frames, by their codes
_FLAC_TOLD = {6: 1, 7: 2}  # bytes behind a frame's number that tell its size, as of a last one
_FLAC_RATES = {12: 1, 13: 2, 14: 2}  # bytes in which a rate is told there
_MOST_BLOCKS = 10_000  # before the frames
_MOST_ATTEMPTS = 1_000  # at what looks like a frame
_MOST_FRAMES = 0x10FFFF  # numbers are written as characters are in UTF-8, and Python's end here


@dataclass(frozen=True)
class Part:
    """The bytes `start` to `end` of a file, a file by themselves; `ended` unless its end mark is missing."""

    start: int
    end: int
    ended: bool = True
    lost_after: int | None = None  # samples, at least, before the first that are missing within it


def bytes_after(data: Content, end: int) -> int:
    """Return the number of bytes after a place in a file, 0 if they are tags or zeros."""
    if data[end : end + max(map(len, NOT_AUDIO))].startswith(NOT_AUDIO):
        return 0
    return 0 if next(matches(_NOT_ZERO, data, 1, end), None) is None else len(data) - end


def after_id3(data: Content, at: int) -> int:
    """Return where the ID3v2 tags end that are at a place (https://id3.org/id3v2.4.0-structure, 3.1)."""
    while data[at : at + 3] == b"ID3" and max(data[at + 6 : at + _ID3_HEADER], default=0x80) < 0x80:
        size = 0
        for seven_bits in data[at + 6 : at + _ID3_HEADER]:
            size = size << 7 | seven_bits
        has_footer = bool(data[at + 5] & 0x10)
        at += _ID3_HEADER + size + has_footer * _ID3_HEADER
    return at


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
    at = _next_page(data, 0)
    while at >= 0 and len(data) >= at + 27:
        segments = data[at + 26]
        body = at + 27 + segments
        end = body + sum(data[at + 27 : body])
        if end <= len(data) and not data[at + 4] and _fits_checksum(data[at:end]):
            granule, serial, number = struct.unpack("<qII", data[at + 6 : at + 22])
            flags = data[at + 5]
            yield _Page(at, end, flags, granule, serial, number, data[body : body + 8].startswith(_SOUND_HEADS))
            at = _next_page(data, end)
        else:
            at = _next_page(data, at + 1)


def _next_page(data: Content, at: int) -> int:
    """Return where the next page may begin, -1 if none does."""
    return next((start for start, _ in matches(_OGG, data, 4, at)), -1)


def _fits_checksum(page: bytes) -> bool:
    """Return whether an Ogg page has its checksum (RFC 3533, 6: CRC of 0x04c11db7, over the page without it).

    zlib's CRC is of the same polynomial, but takes and gives bits in the other order, and inverts them first and last.
    """
    found = zlib.crc32((page[:22] + bytes(4) + page[26:]).translate(_BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return found.to_bytes(4, "big").translate(_BITS_REVERSED) == page[22:26]


def flac_parts(data: Content) -> list[Part]:
    """Return the files that were joined to a FLAC file (RFC 9639, 8), one part if it is a single one."""
    begins: list[int] = []
    found = _next_flac(data, after_id3(data, 0))
    while found is not None:
        begins.append(found)
        found = _next_flac(data, _flac_sound(data, begins[-1]))
    begins = begins or [0]
    return [Part(start, end) for start, end in zip(begins, [*begins[1:], len(data)], strict=True)]


def _next_flac(data: Content, at: int) -> int | None:
    return next((start for start, _ in matches(_FLAC, data, 8, at)), None)


def _flac_sound(data: Content, start: int) -> int:
    """Return where the first frame of a FLAC file is: after its blocks, which may hold any bytes."""
    at = start + 4
    for _ in range(_MOST_BLOCKS):
        head = data[at : at + 4]
        at += 4 + int.from_bytes(head[1:], "big")
        if len(head) < 4 or head[0] & 0x80:  # the mark of the last one
            break
    return at


def uncounted_flac(data: Content, part: Part) -> bytes | None:
    """Return a FLAC file as one of unknown length if frames follow the samples that it counts, None if not."""
    beginning = data[part.start : part.start + _FLAC_BEGINNING]
    if len(beginning) < _FLAC_BEGINNING or not _FLAC.match(beginning):
        return None
    block, largest, _, packed = struct.unpack(">HH6sQ", beginning[8:])
    samples = packed & _FLAC_SAMPLES
    if not samples or not block or block != largest:
        return None
    number = samples // block  # of the frame that holds the next sample, if there is one
    if number * block + _flac_frame_samples(data, part, number) <= samples:
        return None
    return beginning[:18] + struct.pack(">Q", packed - samples) + data[part.start + _FLAC_BEGINNING : part.end]


def _flac_frame_samples(data: Content, part: Part, number: int) -> int:
    """Return the samples of a FLAC file's frame of a number (RFC 9639, 9.1), which is like the first; 0 if none is."""
    at = _flac_sound(data, part.start)
    first = data[at : at + 4]
    if len(first) < 4 or not first.startswith(_FLAC_FRAME) or number > _MOST_FRAMES:
        return 0
    rate, sample = first[2] & 0x0F, first[3] & 0x0F
    kinds = bytes(size << 4 | rate for size in range(1, 16)), bytes(n << 4 | sample for n in range(11))
    head = b"".join(b"[%b]" % re.escape(kind) for kind in kinds) + re.escape(
        chr(number).encode("utf-8", "surrogatepass")
    )
    frame = re.compile(_FLAC_FRAME + head)
    for start, found in islice(matches(frame, data, 8, at, part.end), _MOST_ATTEMPTS):
        code, end = found[2] >> 4, start + len(found)
        told = end + _FLAC_TOLD.get(code, 0)
        if not _crc8(data[start : told + _FLAC_RATES.get(rate, 0) + 1]):
            return int.from_bytes(data[end:told], "big") + 1 if code in _FLAC_TOLD else _FLAC_SIZES[code]
    return 0


def _crc8(data: bytes) -> int:
    """Return the CRC of 0x07, which is 0 of what ends with its own."""
    remainder = 0
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = (remainder << 1 ^ (0x07 if remainder & 0x80 else 0)) & 0xFF
    return remainder
