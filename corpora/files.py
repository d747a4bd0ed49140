"""Caption files and audio folders: read once, whatever the number of clips, with errors in plain words."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from corpora.table import CorpusError

_CAPTION = re.compile(r"caption_(\d+)")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_SEPARATORS = re.compile(r"[/\\]")


class Line(NamedTuple):
    """A row of a CSV file: its first line's number, its cells by column, and why it cannot be used, or ""."""

    number: int
    cells: dict[str, str]
    reason: str


class AudioFolder:
    """An audio folder, listed once; a subfolder when the first name in it is asked for.

    So 400,000 names cost one listing and not 400,000 calls to the file system.

    Raises:
        CorpusError: if the folder does not exist or may not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listed: dict[str, set[str]] = {}
        if not path.is_dir():
            raise CorpusError(f"{path}: no such folder; expected the audio files in it")

    def __contains__(self, name: str) -> bool:
        subfolder, slash, last = name.rpartition("/")
        if slash and leads_out(name):
            return False
        return last in self.files(subfolder)

    def locate(self, name: str) -> str:
        """The path of a name in the folder."""
        # pathlib takes a quarter of the time of reading a corpus; only names with a folder need what it does.
        return str(self.path / name) if "/" in name else f"{self.path}/{name}"

    def files(self, subfolder: str = "") -> set[str]:
        """Names of the files right in the folder, or in a folder below it; none if that does not exist."""
        if subfolder not in self._listed:
            self._listed[subfolder] = _list(self.path / subfolder)
        return self._listed[subfolder]


def _list(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except PermissionError as error:
        raise CorpusError(f"{folder}: may not be read ({error.strerror}); expected the audio files in it") from error
    except (OSError, ValueError):  # absent, or a name that no folder can have: too long, or with a NUL
        return set()


def leads_out(name: str) -> bool:
    """Whether a file name leads out of its folder, in the notation of any system; a colon alone is part of a name."""
    return bool(_ABSOLUTE.match(name)) or ".." in _SEPARATORS.split(name)


def find(what: str, candidates: Sequence[Path], remedy: str) -> Path:
    """The one of several places where corpora keep something.

    Raises:
        CorpusError: if there is none or more than one; `remedy` says what to do.
    """
    there = [path for path in dict.fromkeys(candidates) if path.exists()]
    if len(there) == 1:
        return there[0]
    places = ", ".join(map(str, there or candidates[1:]))
    if there:
        raise CorpusError(f"{there[0]}: one {what} expected, found {len(there)}: {places}; {remedy}")
    also = f" (looked also for {places})" if places else ""
    raise CorpusError(f"{candidates[0]}: no such {what}{also}; {remedy}")


def read_csv(path: Path, expected: str, encoding: str = "utf-8-sig") -> tuple[list[str], list[Line]]:
    """Read a CSV file with a header; a line that cannot be used says why and stops no other.

    Args:
        expected: what the file should be, for the message if it is missing.
        encoding: by default UTF-8 with or without a byte order mark; bytes that are none become lone surrogates.

    Returns:
        The columns, and the lines that are not empty. Fields are parted by commas, or by semicolons if the header
        has these and no comma (DCASE's hidden test set). Cells that a short line lacks are "".

    Raises:
        CorpusError: if the file is missing, cannot be read or has no line under the header, if a column occurs
            twice, or if a quote is opened and not closed: what follows it would be lost.
    """
    try:
        with path.open(newline="", encoding=encoding, errors="surrogateescape") as file:
            columns, lines = _parse(path, file)
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file; expected {expected}") from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    repeated = [column for column in columns if columns.count(column) > 1]
    if repeated:
        raise CorpusError(f"{path}: column {repeated[0]!r} occurs {columns.count(repeated[0])} times")
    if columns and not lines:
        raise CorpusError(f"{path}: no clips; expected at least one row under the header")
    return columns, lines


def _parse(path: Path, file: IO[str]) -> tuple[list[str], list[Line]]:
    header = file.readline()
    file.seek(0)
    reader = csv.reader(file, delimiter=";" if ";" in header and "," not in header else ",", strict=True)
    columns: list[str] = []
    lines: list[Line] = []
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return columns, lines
        except csv.Error as error:
            # An error in one line is that line's own. One that took in several is a quote that is not closed.
            if reader.line_num > number:
                raise CorpusError(f"{path}, line {number}: is a quote opened and not closed? ({error})") from error
            lines.append(Line(number, dict.fromkeys(columns, ""), f"not CSV ({error})"))
            continue
        if not columns:
            columns = fields
        elif fields:
            cells = dict(zip(columns, fields + [""] * (len(columns) - len(fields))))
            excess = "more fields than the header has columns; is a comma unquoted?"
            lines.append(Line(number, cells, excess if len(fields) > len(columns) else ""))


def caption_columns(path: Path, columns: Sequence[str]) -> list[str]:
    """The columns caption_1, caption_2, ... by their number.

    Raises:
        CorpusError: if there is none, or no column file_name.
    """
    captions = sorted((name for name in columns if _CAPTION.fullmatch(name)), key=lambda name: int(name.split("_")[1]))
    if "file_name" not in columns or not captions:
        raise CorpusError(
            f"{path}: found columns {', '.join(columns) or '(none)'}; expected file_name, caption_1 and on to caption_N"
        )
    return captions
