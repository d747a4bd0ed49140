"""Exclude clips that must not be trained on: the DCASE rule, and the lists that go with WavCaps.

DCASE names Freesound ids whose use marks a system as "Data leak". Ids are compared as strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from corpora.files import read_json
from corpora.ids import known_id, parse_youtube_name
from corpora.table import QUARANTINE_COLUMNS, CorpusTable
from models.csv_files import read_csv
from models.errors import CorpusError

_FREESOUND_COLUMNS = ("sound_id", "freesound_id")
_EXPECTED = '{"AudioSet": ["Y<id>.wav", ...], "FreeSound": ["<id>", ...]}'


@dataclass(frozen=True)
class Exclusions:
    """Ids to exclude, each with the source that names it: a file or `<corpus>/<split>`."""

    freesound: dict[str, str] = field(default_factory=dict)
    youtube: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def union(parts: Iterable[Exclusions]) -> Exclusions:
        """Return all ids of all parts; an id that several name keeps the source of the first."""
        ordered = list(parts)[::-1]
        return Exclusions(
            {i: source for part in ordered for i, source in part.freesound.items()},
            {i: source for part in ordered for i, source in part.youtube.items()},
        )


def read_exclusions(path: str | Path) -> Exclusions:
    """Read an exclusion list in any published form.

    Args:
        path: JSON as WavCaps' blacklists, {"AudioSet": ["Y<id>.wav", ...], "FreeSound": ["<id>", ...]}, or a CSV file
            with a header. Its ids are in the column sound_id or freesound_id (Clotho's metadata, DCASE's list),
            youtube_id (AudioCaps), id (aac-datasets' blacklists), or else the first; in the latter two, numbers are
            Freesound ids and names such as Y<id>.wav are videos.

    Raises:
        CorpusError: if the list is missing or malformed, holds something that is not an id, or no id at all.
            "Not found", as Clotho's metadata has it, is not a mistake and not an id.
    """
    path = Path(path)
    found = _from_json(path) if path.suffix.lower() == ".json" else _from_csv(path)
    if not found.freesound and not found.youtube:
        raise CorpusError(f"{path}: no ids; expected at least one Freesound or YouTube id")
    return found


def find_evaluation_ids(tables: Mapping[tuple[str, str], pd.DataFrame]) -> Exclusions:
    """Return the ids of all clips of validation and test splits.

    Args:
        tables: `CorpusTable.clips` by (corpus, split).
    """
    evaluation = {f"{c}/{split}": table for (c, split), table in tables.items() if split in ("validation", "test")}
    return Exclusions.union(
        Exclusions(_all_from(table["freesound_id"], source), _all_from(table["youtube_id"], source))
        for source, table in evaluation.items()
    )


def exclude(clips: pd.DataFrame, exclusions: Exclusions) -> CorpusTable:
    """Separate the clips of a training split (`CorpusTable.clips`) that are excluded from the others."""
    freesound = _reasons(clips["freesound_id"], exclusions.freesound, "Freesound id")
    youtube = _reasons(clips["youtube_id"], exclusions.youtube, "YouTube id")
    reasons = freesound.where(freesound != "", youtube)
    out = reasons != ""
    quarantine = clips.loc[out, ["clip_id", "path"]].assign(reason=reasons[out])[list(QUARANTINE_COLUMNS)]
    return CorpusTable(clips[~out].reset_index(drop=True), quarantine.reset_index(drop=True))


def _reasons(ids: pd.Series, sources: dict[str, str], what: str) -> pd.Series:
    """Return why each clip is excluded, or ""."""
    each = ids.str.split().explode()  # a mixture has those of two clips
    listed = each[each.isin(list(sources))]
    listed = listed[~listed.index.duplicated()]
    texts = f"excluded from training: {what} " + listed + " is in " + listed.map(sources)
    return texts.reindex(ids.index, fill_value="")


def _all_from(ids: pd.Series, source: str) -> dict[str, str]:
    return dict.fromkeys(ids[ids != ""], source)


def _from_json(path: Path) -> Exclusions:
    content = read_json(path, "an exclusion list")
    lists: dict[str, Any] = content if isinstance(content, dict) else {}
    if not lists or not set(lists) <= {"AudioSet", "FreeSound"} or not all(isinstance(x, list) for x in lists.values()):
        raise CorpusError(f"{path}: found another form; expected {_EXPECTED}")
    freesound = [_freesound(str(entry), f"{path}, FreeSound") for entry in lists.get("FreeSound", [])]
    youtube = [_youtube(str(entry), f"{path}, AudioSet") for entry in lists.get("AudioSet", [])]
    return _named(freesound, youtube, path.name)


def _from_csv(path: Path) -> Exclusions:
    table = read_csv(path, "an exclusion list")
    if not table.columns:
        raise CorpusError(f"{path}: is empty; expected a header and ids")
    candidates = (*_FREESOUND_COLUMNS, "youtube_id", "id", table.columns[0])
    column = next(name for name in candidates if name in table.columns)
    freesound, youtube = [], []
    for line in table.usable_lines():
        where, text = f"{path}, line {line.number}", line.cells[column]
        mixed = column not in (*_FREESOUND_COLUMNS, "youtube_id")
        if column == "youtube_id" or (mixed and parse_youtube_name(text)[0] and not text.isdecimal()):
            youtube.append(_youtube(text, where))
        else:
            freesound.append(_freesound(text, where))
    return _named(freesound, youtube, path.name)


def _named(freesound: list[str], youtube: list[str], source: str) -> Exclusions:
    return Exclusions({i: source for i in freesound if i}, {i: source for i in youtube if i})


def _freesound(text: str, where: str) -> str:
    found = known_id(text)
    if found and not found.isdecimal():
        raise CorpusError(f"{where}: {text!r} is not a Freesound id; expected digits")
    return found


def _youtube(text: str, where: str) -> str:
    found = known_id(text)
    if found and not parse_youtube_name(found)[0]:
        raise CorpusError(f"{where}: {text!r} is not a YouTube id; expected 11 characters or Y<id>.wav")
    return parse_youtube_name(found)[0]
