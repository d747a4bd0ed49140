"""From the rows of caption files to a corpus's table: the one place where clips are used or set aside."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from corpora.files import AudioFolder, leads_out
from corpora.ids import known_id, without_suffix
from corpora.table import QUARANTINE_COLUMNS, CorpusTable, clip_frame
from models.csv_files import CsvTable, Line
from models.text import WORD, fault_of, printable

logger = logging.getLogger(__name__)

MAX_CAPTION_CHARACTERS = 2_000  # AudioCaps' longest has 210: more is an accident, such as a whole file in one field


@dataclass(slots=True)
class Row:
    """One clip as a caption file describes it."""

    origin: str  # the file, and the line or item in it
    file_name: str
    captions: Sequence[object]  # blank ones, and what is not text, are left out
    clip_id: str = ""  # file_name without its suffix when left out
    path: str = ""  # in the audio folder when left out
    freesound_id: str = ""
    youtube_id: str = ""
    reason: str = ""  # why it cannot be used, if the caption file alone shows it

    @classmethod
    def from_line(
        cls, table: CsvTable, line: Line, captions: Sequence[str], file_name: str | None = None, **ids: str
    ) -> Row:
        """Return the row of a line of a CSV file.

        Args:
            captions: the columns of the captions.
            file_name: that of the column file_name when left out.
            ids: any of clip_id, freesound_id and youtube_id.
        """
        return cls(
            f"{table.path.name} line {line.number}",
            line.cells["file_name"] if file_name is None else file_name,
            [line.cells[column] for column in captions],
            reason=line.reason,
            **ids,
        )


def ids_of(cells: Mapping[str, object]) -> dict[str, str]:
    """Return the ids in a row's columns freesound_id (or sound_id, as Clotho calls it) and youtube_id, else ""."""
    freesound = cells.get("freesound_id", cells.get("sound_id"))
    youtube = cells.get("youtube_id")
    return {
        "freesound_id": "" if freesound is None else str(freesound),
        "youtube_id": "" if youtube is None else str(youtube),
    }


def split_usable(rows: Iterable[Row], audio: AudioFolder | None, may_be_fewer: bool = False) -> CorpusTable:
    """Separate the rows that can be used from those that cannot.

    Args:
        rows: one for each clip.
        audio: the folder that file names are in; None if every row gives its path.
        may_be_fewer: clips may have fewer captions than the file has columns: those that are blank at a row's end are
            no fault. Other blank captions beside a clip's good ones are left out with a warning.

    Returns:
        The table. Of rows with the same name, clip_id or path, the first that can be used is taken.
    """
    usable: dict[str, tuple[str, str, list[str], str, str]] = {}
    names: dict[str, str] = {}  # file names of the usable rows, by clip_id and by path
    set_aside: list[tuple[str, str, str]] = []
    gaps: list[str] = []  # the origins of rows with blank captions beside good ones
    for row in rows:
        clip_id = row.clip_id or without_suffix(row.file_name)
        path = row.path or (audio.locate(row.file_name) if audio else "")
        captions = [text.strip() for text in row.captions if isinstance(text, str) and WORD.search(text)]
        earlier = names.get(clip_id) or names.get(path)
        reason = row.reason or _reason(row, path, captions, earlier, audio)
        if reason:
            set_aside.append((printable(clip_id), printable(path), f"{row.origin}: {reason}"))
            continue
        names[clip_id] = names[path] = row.file_name
        if _has_blank(row.captions, may_be_fewer):
            gaps.append(row.origin)
        usable[clip_id] = (clip_id, path, captions, known_id(row.freesound_id), known_id(row.youtube_id))
    if gaps:
        logger.warning("blank captions of %d clips are left out; the first is in %s", len(gaps), printable(gaps[0]))
    return CorpusTable(clip_frame(list(usable.values())), pd.DataFrame(set_aside, columns=list(QUARANTINE_COLUMNS)))


def _has_blank(captions: Sequence[object], may_be_fewer: bool) -> bool:
    """Return whether one of a clip's captions is blank text; with `may_be_fewer`, one before the last that is not."""
    filled = [bool(WORD.search(text)) for text in captions if isinstance(text, str)]
    while may_be_fewer and filled and not filled[-1]:
        filled.pop()
    return not all(filled)


def _reason(row: Row, path: str, captions: list[str], earlier: str | None, audio: AudioFolder | None) -> str:
    """Return why a row cannot be used, or ""."""
    name = row.file_name
    if not name.strip():
        return "file_name is blank"
    if fault := fault_of(path):
        return f"file_name {name!r} {fault}"
    if fault := fault_of("".join((*captions, row.clip_id, row.freesound_id, row.youtube_id))):
        return f"a caption or an id {fault}"
    if audio and leads_out(name):
        return f"file_name {name!r} leads out of the audio folder"
    if earlier:
        return "duplicate file_name" if earlier == name else f"same clip as {earlier}"
    if not captions:
        return "no captions, or only blank ones"
    longest = max(map(len, captions))
    if longest > MAX_CAPTION_CHARACTERS:
        return f"a caption has {longest:,} characters; expected at most {MAX_CAPTION_CHARACTERS:,}"
    return "audio file is missing" if audio and name not in audio else ""
