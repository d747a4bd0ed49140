"""Find where a file ends that FFmpeg decodes: before tags, before another file that was joined to it, or too early."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from .audio_bytes import Content, matches
from .audio_streams import after_id3, bytes_after

_APE_FOOTER = 32  # bytes
_ID3V1 = 128
_FILLED = 64  # zeros that are looked at together
_LEFT = 8  # zeros behind the sound, which may be its end
_BARE = (b"\x0b\x77", b"\x77\x0b", b"\x7f\xfe", b"\xfe\x7f", b"\x47")  # frames of AC3 and DTS, and MPEG-TS: no header
_WAVPACK_INITIAL = 0x800  # the flag of a block with the first channels
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # of a header
_FLV_TAGS = (8, 9, 18)
_HEAD_BYTES = 16  # that tell of what kind a file is
_MATROSKA_HEAD = 256  # bytes before its first segment, at most
# Bytes of a frame of AMR, with its own first byte, by the kind that this states; 0 is none.
_AMR = {
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1),
}
_AMR_UNUSED = 0x83  # bits of a frame's first byte, which are 0


@dataclass(frozen=True)
class End:
    """Where the first file ends of what may be several."""

    at: int  # of its sound, without tags
    joined: bool = False  # whether another file begins there
    strange: bool = False  # whether what is there is neither sound, nor a file, nor a tag


def first_end(data: Content) -> End:
    """Return where a file ends by what its own parts say, or that of all bytes where they say nothing."""
    start = after_id3(data, 0)
    for begins, walk in _WALKS:
        if begins.match(data[start : start + _HEAD_BYTES]):
            at = walk(data, start)
            second = _after_tags(data, at)
            if begins.match(data[second : second + _HEAD_BYTES]):
                return End(second, joined=True)
            strange = bytes_after(data, second) > 0
            return End(len(data) if strange else at, strange=strange and walk is _amr_end)
    return End(_before_tags(data) if data[start : start + 2].startswith(_BARE) else len(data))


def _after_tags(data: Content, at: int) -> int:
    """Return where the tags and zeros end that are at a place."""
    while at < len(data):
        after = after_id3(data, at)
        if data[at : at + 3] == b"TAG":
            after = at + _ID3V1
        elif data[at : at + 8] == b"APETAGEX":  # its header, of which the size does not count
            after = at + _APE_FOOTER + int.from_bytes(data[at + 12 : at + 16], "little")
        elif not any(data[at : at + _FILLED]):
            after = at + _FILLED
        if after <= at:
            break
        at = after
    return min(at, len(data))


def _before_tags(data: Content) -> int:
    """Return where the tags and zeros begin that end a file."""
    end = len(data)
    while True:
        footer = data[max(0, end - _APE_FOOTER) : end]
        if data[end - _ID3V1 : end - _ID3V1 + 3] == b"TAG":
            tags = end - _ID3V1
        elif footer.startswith(b"APETAGEX"):
            tags = end - int.from_bytes(footer[12:16], "little")
            if data[max(0, tags - _APE_FOOTER) : tags].startswith(b"APETAGEX"):  # it has a header, too
                tags -= _APE_FOOTER
        else:
            break
        if not 0 < tags < end:
            break
        end = tags
    zeros = end
    while zeros and not any(data[max(0, zeros - _FILLED) : zeros]):
        zeros = max(0, zeros - _FILLED)
    zeros -= _FILLED - len(data[max(0, zeros - _FILLED) : zeros].rstrip(b"\0")) if zeros >= _FILLED else 0
    return min(end, zeros + _LEFT)


def _mp4_end(data: Content, start: int) -> int:
    """Return where a second `ftyp` box is, outside of all others (ISO/IEC 14496-12, 4.2)."""
    at = start
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"ftyp" and at > start:
            return at
        if size == 1 and at + 16 <= len(data):
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:  # 0 is of a box that goes to the end
            break
        at += size
    return len(data)


def _flv_end(data: Content, start: int) -> int:
    at = start + int.from_bytes(data[start + 5 : start + 9], "big") + 4
    while at + 15 <= len(data) and data[at] in _FLV_TAGS:
        at += 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
    return min(at, len(data))


def _tta_end(data: Content, start: int) -> int:
    """Return where the frames end whose sizes stand in a table behind the header."""
    if start + 22 > len(data):
        return len(data)
    rate, samples = struct.unpack("<II", data[start + 10 : start + 18])
    frames = -(-samples // max(1, rate * 256 // 245))
    table = data[start + 22 : start + 22 + 4 * frames]
    if len(table) < 4 * frames:
        return len(data)
    sizes: tuple[int, ...] = struct.unpack(f"<{frames}I", table)
    return min(len(data), start + 26 + len(table) + sum(sizes))


def _wavpack_end(data: Content, start: int) -> int:
    """Return where the blocks end, or those of a second file begin, with sample 0."""
    at, begun = start, False
    while at + 32 <= len(data) and data[at : at + 4] == b"wvpk":
        size, index, samples, flags = struct.unpack("<4xI8xIII", data[at : at + 28])
        if samples and not index and flags & _WAVPACK_INITIAL and not data[at + 10]:
            if begun:
                return at
            begun = True
        at += 8 + size
    return min(at, len(data))


def _amr_end(data: Content, start: int) -> int:
    """Return where what follows is no frame (RFC 4867, 5.3), or one of zeros, which says itself that it is damaged."""
    head = next((head for head in _AMR if data[start : start + len(head)] == head), None)
    if head is None:
        return len(data)
    at, sizes = start + len(head), _AMR[head]
    while at < len(data):
        size = 0 if data[at] & _AMR_UNUSED else sizes[data[at] >> 3 & 0x0F]
        if not size or not any(data[at : at + size]):
            break
        at += size
    return min(at, len(data))


def _matroska_end(data: Content, start: int) -> int:
    """Return where the first bytes of the file are again, up to its first segment, whose size may be unknown."""
    segment = data[start : start + _MATROSKA_HEAD].find(b"\x18\x53\x80\x67")
    if segment < 0:
        return len(data)
    head = data[start : start + segment + 4]
    again = matches(re.compile(re.escape(head)), data, len(head), start + len(head))
    return next((second for second, _ in again), len(data))


def _asf_end(data: Content, start: int) -> int:
    """Return where the objects end (Advanced Systems Format, 2.1), or a second header is."""
    at = start
    while at + 24 <= len(data):
        size = int.from_bytes(data[at + 16 : at + 24], "little")
        if size < 24 or (at > start and data[at : at + len(_ASF)] == _ASF):
            break
        at += size
    return min(at, len(data))


def _avi_end(data: Content, start: int) -> int:
    """Return where the file ends with those pieces of it, `AVIX`, that follow where it is larger than 1 GiB."""
    at = start
    while data[at : at + 4] == b"RIFF" and (at == start or data[at + 8 : at + 12] == b"AVIX"):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if not size:
            return len(data)
        at += 8 + size + size % 2
    return min(at, len(data))


_WALKS: tuple[tuple[re.Pattern[bytes], Callable[[Content, int], int]], ...] = (
    (re.compile(rb"....ftyp", re.DOTALL), _mp4_end),
    (re.compile(rb"FLV\x01"), _flv_end),
    (re.compile(rb"TTA1"), _tta_end),
    (re.compile(rb"wvpk"), _wavpack_end),
    (re.compile(rb"#!AMR"), _amr_end),
    (re.compile(rb"\x1a\x45\xdf\xa3"), _matroska_end),
    (re.compile(rb"RIFF....AVI ", re.DOTALL), _avi_end),
    (re.compile(re.escape(_ASF)), _asf_end),
)
