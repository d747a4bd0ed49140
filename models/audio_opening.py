"""Open a file of audio for libsndfile, whatever its header leaves out and whatever lies beside it."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import soundfile

from .audio_bytes import Content, FileBytes, Patch, as_file
from .audio_headers import joined_at, missing_size, others_left_out
from .audio_mpeg import begins_with_frame, right_bytes
from .audio_notes import note
from .errors import AudioError
from .files import KIND_BYTES, known_kind, refuse_stand_in

Source = bytes | BinaryIO  # a path, as the system has it, or an open file
_EXTRA = "for formats that libsndfile does not know, such as M4A or WebM, install the extra `formats`: pip install av"
_SEARCHED = re.compile(rb"ID3|fLaC|OggS|\xff[\xe0-\xff]")  # from the beginning to the end, unlike PCM
_AT_ONCE = 2**20  # bytes: clips are searched faster when they have been read whole; what is longer takes no memory
_EMPTY_ID3 = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)  # the decoder warns of a smaller one
# What decoders and their bindings raise for some file, beside their own errors, which are some of these.
_RAISED = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class Sound(soundfile.SoundFile):
    """A file that is read from its beginning on.

    soundfile seeks after each read of a file that it can seek in: MP3 has a click there, and FLAC of unknown length
    fails at its end as it does at damage.
    """

    def seekable(self) -> bool:
        """Return that it must not be sought in."""
        return False


def open_sound(source: Source, name: str) -> tuple[Sound, Content]:
    """Open a file, with the sizes that its header should state in place of those that it does.

    Returns:
        the file, and its bytes.

    Raises:
        AudioError: it is known to be something else, or another file was joined to one of PCM.
        soundfile.LibsndfileError: libsndfile does not know it.
    """
    data = contents(source)
    if kind := known_kind(data[:KIND_BYTES]):  # libsndfile and FFmpeg would pass over that to sound within
        remedy = "unpack it" if "archive" in kind else "download the sound again"
        raise AudioError(f"{name}: found {kind}, expected audio; {remedy}")
    size, others = missing_size(data), others_left_out(data)
    if second := joined_at(data, others):
        raise AudioError(f"{name}: another file was joined to it after byte {second:,}; split it there")
    if size:
        note(f"{name}: its header does not say how much sound there is; what follows is read to the end")
    elif others and others.unknown:
        note(f"{name}: {others.unknown:,} bytes after the sound, which its header does not count, are left out")
    sound = _changed(source, data, size or (Patch(0, b"", others.start) if others else None))
    count = right_bytes(sound)
    opened = _changed(source, sound, count)
    return _opened(source if opened is data else as_file(opened), opened), sound


def open_bytes(data: Content) -> Sound:
    """Open the bytes of a file.

    Raises:
        soundfile.LibsndfileError: libsndfile does not know it.
    """
    return _opened(as_file(data), data)


def _opened(file: Source | io.BufferedIOBase, data: Content) -> Sound:
    try:
        return Sound(file)
    except soundfile.LibsndfileError:
        if not begins_with_frame(data):
            raise
        # Beside it, there is a file called `._` and its name, as macOS leaves them: libsndfile takes that for the
        # header of MPEG, if no tag is before it. Bytes have no name for it, so that `._` suffices.
        return Sound(io.BytesIO(_EMPTY_ID3 + data[:]))


def _changed(source: Source, data: Content, patch: Patch | None) -> Content:
    """Return the bytes of a file as they should be; those of a path take no memory but for what is changed."""
    if patch is None:
        return data
    after = patch.at + len(patch.new)
    if not isinstance(source, bytes):
        return data[: patch.at] + patch.new + data[after : patch.end]
    return FileBytes(source, patch)


def existing(source: str | Path | BinaryIO, name: str) -> Source:
    """Return the source, after refusing a path that leads to no file."""
    if not isinstance(source, str | Path):
        source.seek(0)
        return source
    path = Path(source)
    if not path.exists():
        raise AudioError(f"{name}: no such file")
    if not path.is_file():
        raise AudioError(f"{name}: is not a file")
    return os.fsencode(path)  # file systems allow names that are not Unicode text


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Raise as AudioError whatever the system says of a file, or a decoder makes of what is no audio."""
    try:
        yield
    except AudioError:
        raise
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error.strerror or error})") from error
    except _RAISED as error:
        raise AudioError(f"{name}: cannot be decoded as audio ({reason(error)})") from error


def reason(error: Exception) -> str:
    """Return what an error says; of libsndfile's without what it calls a file that has no path."""
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return text or type(error).__name__


@contextmanager
def binary(source: Source) -> Iterator[BinaryIO]:
    """Yield the source as an open file, at its beginning."""
    if isinstance(source, bytes):
        with open(source, "rb") as file:
            yield file
    else:
        source.seek(0)
        yield source


def contents(source: Source) -> Content:
    """Return all bytes of the source; a decoder that has it open finds it where it was."""
    if isinstance(source, bytes):
        file = FileBytes(source)
        return file[:] if len(file) <= _AT_ONCE and _SEARCHED.match(file[:4]) else file
    at = source.tell()
    source.seek(0)
    data = source.read()
    source.seek(at)
    return data


def ffmpeg(name: str, source: Source, error: Exception) -> ModuleType:
    """Return the module that decodes what libsndfile does not know.

    Raises:
        AudioError: it is empty or a stand-in, or the extra is not installed; `error` is what libsndfile said.
    """
    if isinstance(source, bytes):
        refuse_stand_in(Path(os.fsdecode(source)), "audio", AudioError, name)
    try:
        from . import audio_ffmpeg
    except ImportError as missing:
        raise AudioError(f"{name}: cannot be decoded as audio ({reason(error)}); {_EXTRA}") from missing
    return audio_ffmpeg
