"""Find all sound in MP3 and MP2, whose header counts it wrongly or not at all, or that was joined of several files."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from .audio_bytes import Content, Patch, matches
from .audio_streams import NOT_AUDIO, after_id3
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
# With no bit rate in its header: how long the frames are, decoders alone find out.
_FREE_FORMAT = re.compile(rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][\x00-\x0b]")
_ATTEMPTS = 50_000  # headers without other frames behind them after which no sound is looked for any more
_BEGINNING = 2**20  # bytes in which the first frame is looked for, where it counts the others
_TAIL = 2**11  # bytes, that are not counted or too many: the first frame itself, or a tag at the end
_DELAY = 3_000  # samples, at most, that decoders take off both ends together, as delay and padding


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


def begins_with_frame(data: Content) -> bool:
    """Return whether a file begins with a frame of MPEG audio, and no tag before it."""
    return _frame(data, 0) is not None


def counts_all(data: Content) -> bool:
    """Return whether MPEG audio begins with a Xing, Info or VBRI frame that counts the others, and all bytes."""
    counted = _counted_bytes(data)
    return counted is not None and len(data) - counted.end <= _TAIL


def right_bytes(data: Content) -> Patch | None:
    """Return the number of bytes of an MP3 whose beginning counts far fewer or more, None if it does not.

    The decoder would print a warning of it, without the name of the file.
    """
    counted = _counted_bytes(data) if data[:3] == b"ID3" or begins_with_frame(data) else None
    if not counted or abs(len(data) - counted.end) <= _TAIL:
        return None
    return Patch(counted.at, struct.pack(">I", min(len(data) - counted.start, 2**32 - 1)), len(data))


class _CountedBytes(NamedTuple):
    start: int
    end: int
    at: int  # of their number


def _counted_bytes(data: Content) -> _CountedBytes | None:
    """Return the bytes that the first frame of MPEG audio counts, None if it counts none."""
    first = next(_frames(data[:_BEGINNING]), None)
    found = _find_count(data, first) if first else None
    if not first or not found or (found[0] != b"VBRI" and not found[0][-1] & 2):
        return None
    at = first.start + found.start() + (10 if found[0] == b"VBRI" else 12)
    return _CountedBytes(first.start, first.start + int.from_bytes(data[at : at + 4], "big"), at)


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
    if _FREE_FORMAT.match(data[(start := after_id3(data, 0)) : start + 4]):
        return MpegStream(stated, len(data), None, 0)
    frames: list[_Frame] = []
    headers, samples, between, last = [], 0, 0, 0
    for frame in _frames(data):
        if last:
            between += _bytes_of_no_tag(data, last, frame.start)
        last = frame.end
        if _find_count(data, frame):
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


def _bytes_of_no_tag(data: Content, start: int, end: int) -> int:
    """Return the number of bytes between two places, 0 if a tag begins there, as where files were joined."""
    return 0 if data[start : start + 16].startswith(NOT_AUDIO) else end - start


def _find_count(data: Content, frame: _Frame) -> re.Match[bytes] | None:
    """Return what counts frames, by its place in this frame."""
    return _COUNT.search(data[frame.start : min(frame.start + _COUNT_WITHIN, frame.end)])


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
    for start, _ in islice(matches(_HEADER, data, 3, after_id3(data, at)), _ATTEMPTS):
        chain = [_frame(data, start)]
        while chain[-1] and len(chain) < _CHAIN:
            chain.append(_frame(data, chain[-1].end))
        if len({frame and frame.kind for frame in chain}) == 1 and chain[0]:
            return chain[0]
    return None


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
