"""Find what the header of a file leaves out that was written before its end was known, and what it does not count."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from . import audio_ends
from .audio_bytes import Content, Patch, number
from .audio_streams import bytes_after

_TOO_LARGE = 2**62  # for a size, as in what stands for one that is not known
_UNSET = (0x7F000000, 2**31, 2**32, 2**63, 2**64)  # which recorders write, or somewhat less, when they write to a pipe
_AROUND = 2**16  # by which it differs, to be a multiple of the size of a sample, or with its header
_CHUNK_ID = re.compile(rb"[ -~]{4}")
_OF_SOUND = (b"RIFF", b"RF64", b"data")
_RIFF = (b"RIFF", b"RF64")
_W64 = b"riff"
_W64_HEAD = 24  # bytes, which the size of a chunk counts
_AU = (b".snd", b"dns.")
# Where the size of a whole file stands, and how; AU has that of its sound, after where it begins.
_SIZES = {b"FORM": (4, ">I"), b"RF64": (20, "<Q"), _W64: (16, "<Q"), b".snd": (8, ">I"), b"dns.": (8, "<I")}
_BEGINS = re.compile(
    rb"RIFF....WAVE|RF64....WAVE|FORM....AIF[FC]|riff\x2e\x91|caff\0\x01|\.snd\0|dns\....\0", re.DOTALL
)
_HEAD_BYTES = 32  # in which they are, behind bytes that fill up the first
_MAGIC_BYTES = 4  # that all files of a format begin with
ROUNDED_BYTES = 512  # by which a size is too large that counts the header, or a last block that is not full
_MOST_CHUNKS = 1_000  # that are looked at


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    size: int  # as stated, of which W64 counts the chunk's head
    start: int  # of its content
    end: int


def is_unset(size: int) -> bool:
    """Return whether a size in a header is one that recorders write who do not know it yet."""
    return any(abs(size - unset) <= _AROUND for unset in _UNSET)


def missing_size(data: Content) -> Patch | None:
    """Return the size of the sound of a WAV, RF64, W64 or AU file whose header gives none; None if it gives one.

    Sizes that libsndfile itself takes for unknown are left to it.
    """
    kind = data[:4]
    if kind in _AU:
        return _missing_in_au(data, ">II" if kind == b".snd" else "<II")
    wide: _Chunk | None = None  # where RF64 has its sizes
    for chunk in _chunks(data):
        if kind == b"RF64" and chunk.name == b"ds64" and chunk.size >= 24:
            wide = chunk
        if chunk.name == b"data":
            return _missing_in_chunk(data, chunk, wide) if chunk.start < len(data) else None
    return None


def _missing_in_chunk(data: Content, sound: _Chunk, wide: _Chunk | None) -> Patch | None:
    size = len(data) - sound.start
    if wide:
        stated = number("<Q", data, wide.start + 8)
        unknown = stated == 0 or stated >= _TOO_LARGE
        return Patch(wide.start, struct.pack("<QQQ", len(data) - 8, size, 0), len(data)) if unknown else None
    if data[:4] == _W64:
        unknown = sound.size >= _TOO_LARGE
        return Patch(sound.start - 8, struct.pack("<Q", size + 24), len(data)) if unknown else None
    if sound.size or _fits(data, _chunk(data, sound.start)):
        return None
    return Patch(sound.start - 4, struct.pack("<I", min(size, 2**32 - 1)), len(data))


def _missing_in_au(data: Content, form: str) -> Patch | None:
    if len(data) < 12:
        return None
    start, stated = struct.unpack(form, data[4:12])
    size = min(len(data) - start, 2**32 - 1)
    unknown = not stated or (size < stated < 2**32 - 1 and (stated >= 2**31 or is_unset(stated)))
    return Patch(8, struct.pack(form, 0, size)[4:], len(data)) if unknown and size > 0 else None


class Rest(NamedTuple):
    """What follows the sound of a file: where it begins, and how many bytes of it are no description of the sound."""

    start: int
    unknown: int


def others_left_out(data: Content) -> Rest | None:
    """Return what follows the sound of a file and is not to be given to libsndfile, such as another WAV; None if none.

    libsndfile refuses some of such files, of others passes over the rest without a word, or takes it for more sound.
    """
    kind = data[:4]
    start = _riff_end(data) if kind == b"RIFF" else stated_end(data) or 0
    if not 0 < start < len(data) or kind == b"Crea":  # a block of VOC has no room for the size of a large file
        return None
    unknown = bytes_after(data, _described_w64(data) if kind == _W64 else start)
    return Rest(start, unknown) if unknown or kind != b"RIFF" else None


def _riff_end(data: Content) -> int:
    """Return the end of a WAV's sound and of what describes it; 0 if there is no sound."""
    end = 0
    for chunk in _chunks(data):
        if end and (chunk.name in _OF_SOUND or not _fits(data, chunk)):
            break
        if end or chunk.name == b"data":
            end = chunk.end
    return end


def stated_end(data: Content) -> int | None:
    """Return where the sound of a file ends by its header; None if that is unknown, or libsndfile goes by it."""
    if data[:4] != _W64:
        return audio_ends.stated_end(data)
    sound = next((chunk for chunk in _chunks(data) if chunk.name == b"data"), None)
    if not sound or sound.size < _W64_HEAD or sound.size >= _TOO_LARGE:
        return None
    empty = sound.size == _W64_HEAD and not _fits(data, _chunk(data, sound.start))  # as before a recording's end
    return None if empty else sound.end


def _described_w64(data: Content) -> int:
    """Return the end of the last chunk of a W64 that is there as a whole."""
    return max((chunk.end for chunk in _chunks(data) if _fits(data, chunk)), default=0)


def joined_at(data: Content, others: Rest | None) -> int | None:
    """Return where another file begins that was joined to one of PCM, right behind its end; None if none was.

    Args:
        others: as `others_left_out` returns it.
    """
    if others and data[others.start : others.start + _MAGIC_BYTES] == data[:_MAGIC_BYTES]:
        return others.start
    end, begins = others.start if others and data[:4] == b"RIFF" else _end(data), _BEGINS.match(data[:_HEAD_BYTES])
    if not begins or not end or end >= len(data):
        return None
    behind = _BEGINS.search(data[end : end + _HEAD_BYTES])
    return end + behind.start() if behind and behind[0][:4] == begins[0][:4] else None


def _end(data: Content) -> int | None:
    """Return where a file ends by its own header; None if it does not say, or is a WAV, which may hold more."""
    kind = data[:4]
    if kind == b"caff":
        return _caf_end(data)
    if kind not in _SIZES or len(data) < _HEAD_BYTES:
        return None
    at, form = _SIZES[kind]
    size = number(form, data, at)
    if kind in _AU:
        return size + number(form, data, 4)
    return size if kind == _W64 else size + 8


def missing_bytes(data: Content) -> int:
    """Return how many bytes a WAV, RF64, W64, AIFF or AU file lacks of those that its header states; 0 for others."""
    is_wav = data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    end = number("<I", data, 4) + 8 if is_wav else _end(data) if data[:4] in _SIZES else None
    return 0 if end is None or is_unset(end) else max(0, end - len(data))


def _caf_end(data: Content) -> int:
    at = 8
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(data) or data[at : at + 4] == b"caff":
            break
        size = number(">q", data, at + 4)
        at += 12 + (size if size >= 0 else len(data))
    return at


def _chunks(data: Content) -> Iterator[_Chunk]:
    """Yield the chunks of a RIFF file or one like it, as far as they have names."""
    kind = data[:4]
    if kind not in (*_RIFF, _W64):
        return
    found = _chunk(data, 40 if kind == _W64 else 12)
    for _ in range(_MOST_CHUNKS):
        if not found:
            break
        yield found
        padding = -found.end % (8 if kind == _W64 else 2)
        # Not all writers fill up a chunk of odd size.
        found = _chunk(data, found.end + padding) or (_chunk(data, found.end) if padding else None)


def _chunk(data: Content, at: int) -> _Chunk | None:
    """Return the chunk at a place, whether or not all of it is there; None if it has no name."""
    wide = data[:4] == _W64
    start = at + (24 if wide else 8)
    if start > len(data) or not _CHUNK_ID.match(data[at : at + 4]):
        return None
    size = number("<Q", data, start - 8) if wide else number("<I", data, start - 4)
    return _Chunk(data[at : at + 4], size, start, at + size if wide else start + size)


def _fits(data: Content, chunk: _Chunk | None) -> bool:
    return chunk is not None and chunk.end <= len(data)
