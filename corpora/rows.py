"""From what caption files say to the table: the one place where clips are taken or set aside, for every adapter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from corpora.files import AudioFolder, leads_out
from corpora.ids import known_id, without_suffix
from corpora.table import QUARANTINE_COLUMNS, clip_table

MAX_CAPTION_CHARACTERS = 2_000  # AudioCaps' longest has 210: more is an accident, such as a whole file in one field


@dataclass(slots=True)
class Row:
    """What a caption file says of one clip."""

    origin: str  # the file, and the line or item in it
    file_name: str
    captions: Sequence[object]  # what is blank or no text is left out
    clip_id: str = ""  # file_name less its suffix when left out
    path: str = ""  # in the audio folder when left out
    freesound_id: str = ""
    youtube_id: str = ""
    reason: str = ""  # why it cannot be used, if the caption file alone tells


def ids_of(cells: Mapping[str, object]) -> dict[str, str]:
    """The ids in a row's columns freesound_id (or sound_id, as Clotho calls it) and youtube_id, if it has them."""
    freesound = cells.get("freesound_id", cells.get("sound_id"))
    youtube = cells.get("youtube_id")
    return {
        "freesound_id": "" if freesound is None else str(freesound),
        "youtube_id": "" if youtube is None else str(youtube),
    }


def split_usable(rows: Iterable[Row], audio: AudioFolder | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part the rows that can be used from those that cannot.

    Args:
        rows: a row a clip.
        audio: the folder that file names are in; None if every row gives its path.

    Returns:
        The table (`corpora.table.clip_table`), and the quarantine with columns `clip_id`, `path` and `reason`. Of rows
        with one name, clip_id or path, the first that can be used is taken. The table has no rows if all are set aside.
    """
    usable: dict[str, tuple[str, str, list[str], str, str]] = {}
    names: dict[str, str] = {}  # file names of the usable rows, by clip_id and by path
    set_aside: list[tuple[str, str, str]] = []
    for row in rows:
        clip_id = row.clip_id or without_suffix(row.file_name)
        path = row.path or (audio.locate(row.file_name) if audio else "")
        captions = [text.strip() for text in row.captions if isinstance(text, str) and text.strip()]
        earlier = names.get(clip_id) or names.get(path)
        reason = row.reason or _reason(row, path, captions, earlier, audio)
        if reason:
            set_aside.append((_printable(clip_id), _printable(path), f"{row.origin}: {reason}"))
            continue
        names[clip_id] = names[path] = row.file_name
        usable[clip_id] = (clip_id, path, captions, known_id(row.freesound_id), known_id(row.youtube_id))
    return clip_table(list(usable.values())), pd.DataFrame(set_aside, columns=list(QUARANTINE_COLUMNS))


def _reason(row: Row, path: str, captions: list[str], earlier: str | None, audio: AudioFolder | None) -> str:
    """Why a row cannot be used, or ""."""
    name = row.file_name
    if not name.strip():
        return "file_name is blank"
    if not _is_unicode(path):
        return f"file_name {name!r} is not UTF-8"
    if not _is_unicode("".join((*captions, row.clip_id, row.freesound_id, row.youtube_id))):
        return "a caption or an id is not UTF-8"
    if audio and leads_out(name):
        return f"file_name {name!r} leads out of the audio folder"
    if earlier:
        return "duplicate file_name" if earlier == name else f"same clip as {earlier}"
    if not captions:
        return "no caption that is not blank"
    longest = max(map(len, captions))
    if longest > MAX_CAPTION_CHARACTERS:
        return f"a caption of {longest:,} characters; at most {MAX_CAPTION_CHARACTERS:,} are sensible"
    return "audio file is missing" if audio and name not in audio else ""


def _is_unicode(text: str) -> bool:
    """False for text with lone surrogates: bytes of a file that are not UTF-8, or a broken escape in JSON."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    """For the quarantine, which is written as UTF-8 and must hold what is not."""
    return text.encode(errors="backslashreplace").decode()
