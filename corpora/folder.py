"""Adapter for a plain folder in Clotho's layout: `<root>/<split>.csv` and `<root>/<split>/<file_name>`."""

from __future__ import annotations

import csv
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from corpora.table import CorpusError, clip_table

QUARANTINE_COLUMNS = ("clip_id", "path", "reason")
_CAPTION = re.compile(r"caption_(\d+)")


def read_folder(root: str | Path, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read one split.

    Args:
        root: the folder.
        split: names the CSV file and the audio folder. The CSV is UTF-8 (a byte order mark is accepted) with the
            columns file_name and caption_1, caption_2, ... (one or more); others are ignored.

    Returns:
        The table of usable clips (columns of `corpora.table`; blank captions left out), and the quarantine with columns
        `clip_id`, `path` and `reason`: a row for each line of the CSV that repeats an earlier file name or clip_id,
        has no caption, or names no audio file. The table has no rows if all were quarantined.

    Raises:
        CorpusError: if the CSV is missing, unreadable, lacks columns or has no rows, or a file name leaves the folder.
    """
    folder = Path(root).absolute()
    sheet = folder / f"{split}.csv"
    usable: dict[str, tuple[str, str, list[str]]] = {}
    set_aside: list[tuple[str, str, str]] = []
    for line, name, captions in _rows(sheet):
        _check_inside(sheet, line, name)
        path = folder / split / name
        clip_id = str(PurePosixPath(name).with_suffix("")) if name.strip() else ""
        reason = _reason(name, path, captions, clip_id, usable)
        if reason:
            set_aside.append((clip_id, str(path), f"{sheet.name} line {line}: {reason}"))
        else:
            usable[clip_id] = (clip_id, str(path), captions)
    return clip_table(list(usable.values())), pd.DataFrame(set_aside, columns=list(QUARANTINE_COLUMNS))


def _reason(
    name: str, path: Path, captions: list[str], clip_id: str, usable: dict[str, tuple[str, str, list[str]]]
) -> str | None:
    """Why a clip cannot be used, or None."""
    if not name.strip():
        return "file_name is blank"
    if clip_id in usable:
        earlier = Path(usable[clip_id][1]).name
        return "duplicate file_name" if earlier == Path(name).name else f"same clip_id as {earlier}"
    if not captions:
        return "no caption that is not blank"
    return None if path.is_file() else "audio file is missing"


def _rows(sheet: Path) -> list[tuple[int, str, list[str]]]:
    """(line number, file_name, captions that are not blank) of every row."""
    try:
        with sheet.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = _caption_columns(sheet, list(reader.fieldnames or []))
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise CorpusError(f"{sheet}: no such file; expected one CSV file a split in this folder") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{sheet}: cannot be read as a CSV file in UTF-8 ({error})") from error
    if not rows:
        raise CorpusError(f"{sheet}: no clips; expected at least one row under the header")
    for line, row in rows:
        if None in row:
            raise CorpusError(f"{sheet}, line {line}: more fields than the header has columns; is a comma unquoted?")
    # A short row leaves None in its last columns.
    texts = ((line, row["file_name"] or "", [(row[column] or "").strip() for column in columns]) for line, row in rows)
    return [(line, name, [caption for caption in captions if caption]) for line, name, captions in texts]


def _caption_columns(sheet: Path, found: list[str]) -> list[str]:
    """The caption columns by their number."""
    captions = sorted((name for name in found if _CAPTION.fullmatch(name)), key=lambda name: int(name.split("_")[1]))
    if "file_name" not in found or not captions:
        raise CorpusError(
            f"{sheet}: found columns {', '.join(found) or '(none)'}; expected file_name, caption_1 and on to caption_N"
        )
    return captions


def _check_inside(sheet: Path, line: int, name: str) -> None:
    """Refuse a name that leads out of the folder, in the notation of any system."""
    windows = PureWindowsPath(name)
    if name.startswith(("/", "\\")) or windows.drive or ".." in windows.parts:
        raise CorpusError(f"{sheet}, line {line}: file_name {name!r} leads out of the folder of the split")
