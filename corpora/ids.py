"""Freesound and YouTube ids: always strings, as the exclusion lists match them."""

from __future__ import annotations

import re

AUDIO_SUFFIXES = ("wav", "flac", "ogg", "opus", "mp3", "aiff", "aif", "m4a", "webm")

_SUFFIX = re.compile(rf"\.(?:{'|'.join(AUDIO_SUFFIXES)})$", re.IGNORECASE)
_UNKNOWN = {"", "not found", "none", "nan", "n/a"}  # Clotho's metadata says "Not found"
_WHOLE_FLOAT = re.compile(r"(\d+)\.0+")
# AudioSet names files by the video, PANNs and WavCaps put a Y in front, downloaders add the start in seconds.
_YOUTUBE_NAME = re.compile(r"Y?(?P<id>[A-Za-z0-9_-]{11})(?:_(?P<start>\d+(?:\.\d+)?))?")


def without_suffix(name: str) -> str:
    """Return a file name without its audio suffix; other dots are part of the name (20061208.waves.02.wav)."""
    return _SUFFIX.sub("", name)


def known_id(text: str) -> str:
    """Return an id, or "" for the ways to say that there is none."""
    return "" if text.strip().lower() in _UNKNOWN else whole_number(text.strip())


def whole_number(text: str) -> str:
    """Return 1234 for 1234.0, which is what pandas writes for 1234 in a column with gaps; other text unchanged."""
    match = _WHOLE_FLOAT.fullmatch(text)
    return match[1] if match else text


def parse_youtube_name(name: str) -> tuple[str, str]:
    """Return the video's id and the start in seconds of a file name, or "" for what it does not say.

    Understood are `<id>`, `Y<id>` and `<id>_<start>`, with any audio suffix.
    """
    match = _YOUTUBE_NAME.fullmatch(without_suffix(name))
    return (match["id"], whole_number(match["start"] or "")) if match else ("", "")
