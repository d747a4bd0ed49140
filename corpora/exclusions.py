"""Clips that must not be trained on: the DCASE rule, and the lists that go with WavCaps.

DCASE names Freesound ids whose use marks a system as "Data leak". Ids are compared as strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from corpora.files import read_csv
from corpora.ids import known_id, parse_youtube_name
from corpora.table import QUARANTINE_COLUMNS, CorpusError

_FREESOUND_COLUMNS = ("sound_id", "freesound_id")


@dataclass(frozen=True)
class Exclusions:
    """Ids, and of each the source that names it: a file or `<corpus>/<split>`."""

    freesound: dict[str, str] = field(default_factory=dict)
    youtube: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def union(parts: Iterable[Exclusions]) -> Exclusions:
        """All ids of all parts; one that several name keeps the source of the first."""
        ordered = list(parts)[::-1]
        return Exclusions(
            {i: source for part in ordered for i, source in part.freesound.items()},
            {i: source for part in ordered for i, source in part.youtube.items()},
        )


def read_exclusions(path: str | Path) -> Exclusions:
    """Read a list in any published form.

    Args:
        path: JSON as WavCaps' blacklists, {"AudioSet": ["Y<id>.wav", ...], "FreeSound": ["<id>", ...]}, or a CSV file
            with a header. Its ids are in the column sound_id or freesound_id (Clotho's metadata, DCASE's list),
            youtube_id (AudioCaps), id (aac-datasets' blacklists), or else the first; in the latter two, numbers are
            Freesound ids and names such as Y<id>.wav are videos.

    Raises:
        CorpusError: if the list is missing or malformed, holds something that is no id, or none at all. "Not found",
            as Clotho's metadata has it, is no mistake and no id.
    """
    path = Path(path)
    found = _from_json(path) if path.suffix.lower() == ".json" else _from_csv(path)
    if not found.freesound and not found.youtube:
        raise CorpusError(f"{path}: no ids; expected at least one Freesound or YouTube id")
    return found


def find_evaluation_ids(tables: Mapping[tuple[str, str], pd.DataFrame]) -> Exclusions:
    """The ids of all clips of validation and test splits.

    Args:
        tables: `corpora.table` tables by (corpus, split).
    """
    evaluation = {f"{c}/{split}": table for (c, split), table in tables.items() if split in ("validation", "test")}
    return Exclusions.union(
        Exclusions(_all_from(table["freesound_id"], source), _all_from(table["youtube_id"], source))
        for source, table in evaluation.items()
    )


def exclude(table: pd.DataFrame, exclusions: Exclusions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take the excluded clips out of a training split.

    Returns:
        The table of the others, and quarantine rows (`clip_id`, `path`, `reason`) of those taken out.
    """
    freesound = _reasons(table["freesound_id"], exclusions.freesound, "Freesound id")
    youtube = _reasons(table["youtube_id"], exclusions.youtube, "YouTube id")
    reasons = freesound.where(freesound != "", youtube)
    out = reasons != ""
    quarantine = table.loc[out, ["clip_id", "path"]].assign(reason=reasons[out])
    return table[~out].reset_index(drop=True), quarantine[list(QUARANTINE_COLUMNS)].reset_index(drop=True)


def _reasons(ids: pd.Series, sources: dict[str, str], what: str) -> pd.Series:
    """Why each clip is excluded, or ""."""
    each = ids.str.split().explode()  # a mixture has those of two clips
    listed = each[each.isin(list(sources))]
    listed = listed[~listed.index.duplicated()]
    texts = f"excluded from training: {what} " + listed + " is in " + listed.map(sources)
    return texts.reindex(ids.index, fill_value="")


def _all_from(ids: pd.Series, source: str) -> dict[str, str]:
    return dict.fromkeys(ids[ids != ""], source)


def _from_json(path: Path) -> Exclusions:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file; expected an exclusion list") from None
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path}: cannot be read as JSON ({error})") from error
    lists: dict[str, Any] = content if isinstance(content, dict) else {}
    if not lists or not set(lists) <= {"AudioSet", "FreeSound"} or not all(isinstance(x, list) for x in lists.values()):
        raise CorpusError(f'{path}: expected {{"AudioSet": ["Y<id>.wav", ...], "FreeSound": ["<id>", ...]}}')
    freesound = [_freesound(str(entry), f"{path}, FreeSound") for entry in lists.get("FreeSound", [])]
    youtube = [_youtube(str(entry), f"{path}, AudioSet") for entry in lists.get("AudioSet", [])]
    return _named(freesound, youtube, path.name)


def _from_csv(path: Path) -> Exclusions:
    columns, lines = read_csv(path, "an exclusion list")
    wanted = [column for column in (*_FREESOUND_COLUMNS, "youtube_id", "id", *columns[:1]) if column in columns]
    if not wanted:
        raise CorpusError(f"{path}: is empty; expected a header and ids")
    column = wanted[0]
    freesound, youtube = [], []
    for line in lines:
        where, text = f"{path}, line {line.number}", line.cells[column]
        if line.reason:
            raise CorpusError(f"{where}: {line.reason}")
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
        raise CorpusError(f"{where}: {text!r} is no Freesound id; expected digits")
    return found


def _youtube(text: str, where: str) -> str:
    found = known_id(text)
    if found and not parse_youtube_name(found)[0]:
        raise CorpusError(f"{where}: {text!r} names no YouTube video; expected 11 characters or Y<id>.wav")
    return parse_youtube_name(found)[0]
