"""Read CSV files with a header: captions, queries, metadata, lists of ids. A bad line says why and stops no other."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .errors import CorpusError
from .files import KIND_BYTES, known_kind, refuse_pointer
from .text import WORD, fault_of

_SINGLE_CAPTION = ("caption", "caption_predicted")  # of queries, and of a Task 6 submission
_NUMBERED_CAPTION = re.compile(r"caption_(\d+)")


class Line(NamedTuple):
    """A row of a CSV file."""

    number: int  # of its first line in the file, from 1
    cells: dict[str, str]  # by column
    reason: str  # why it cannot be used, or ""


@dataclass(frozen=True)
class CsvTable:
    """The content of a CSV file."""

    path: Path
    columns: list[str]
    lines: list[Line]

    def require(self, *columns: str) -> None:
        """Raise CorpusError unless the table has all of these columns."""
        if not set(columns) <= set(self.columns):
            raise self.unexpected_columns(", ".join(columns))

    def unexpected_columns(self, expected: str) -> CorpusError:
        """Return the error that says which columns were found, and which were expected."""
        return CorpusError(f"{self.path}: found columns {', '.join(self.columns) or '(none)'}; expected {expected}")

    def clip_captions(self) -> list[str]:
        """Return the columns caption_1, caption_2, ... of a table of clips, by their number.

        Raises:
            CorpusError: if there is no such column, or no column file_name.
        """
        captions = numbered_captions(self.columns)
        if "file_name" not in self.columns or not captions:
            raise self.unexpected_columns("file_name, caption_1, caption_2, ...")
        return captions

    def usable_lines(self) -> list[Line]:
        """Return all lines.

        Raises:
            CorpusError: naming the first line that cannot be used.
        """
        for line in self.lines:
            if line.reason:
                raise CorpusError(f"{self.path}, line {line.number}: {line.reason}")
        return self.lines

    def refuse_blank(self, column: str) -> None:
        """Raise CorpusError, naming the line, if a cell of a column of queries is blank."""
        for line in self.usable_lines():
            if not WORD.search(line.cells[column]):
                raise CorpusError(f"{self.path}, line {line.number}: the {column} is blank; expected a query")

    def texts(self, columns: Iterable[str]) -> list[str]:
        """Return the cells of some columns, line by line, verbatim.

        Raises:
            CorpusError: naming the first line that cannot be used, is not UTF-8 or holds a NUL character.
        """
        wanted = list(columns)
        found = [(line.number, line.cells[column]) for line in self.usable_lines() for column in wanted]
        for number, text in found:
            if fault := fault_of(text):
                raise CorpusError(f"{self.path}, line {number}: {text!r} {fault}")
        return [text for _, text in found]


DELIMITERS = (",", ";", "\t")  # the first that a header has outside of quotes
# The first line, as Excel reads and writes it.
SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)"?(?:\r\n?|\n)', re.IGNORECASE)
QUOTED = re.compile(r'"[^"]*"')
HEADER = re.compile(r"""(?:[^\S\r\n]*[\r\n])*((?:"[^"]*"|[^"\r\n])*)""")  # the first line that is not blank
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, as in what spreadsheets call Unicode text


def read_csv(path: Path, expected: str, encoding: str = "utf-8-sig") -> CsvTable:
    """Read a CSV file with a header; a line that cannot be used says why and stops no other.

    Args:
        expected: what the file should be, for the message if it is missing.
        encoding: by default UTF-8 with or without a byte order mark, or UTF-16 with one; bytes that are not UTF-8
            become lone surrogates.

    Returns:
        The columns, and the lines that are not empty. Fields are separated by what a first line `sep=;` says, as of
        Excel, or else by commas, by semicolons if the header has these and no comma outside of quotes (DCASE's hidden
        test set), or by tabs. Cells missing at the end of a short line are "". As spreadsheets add them, columns
        without a name at the end are left out, and lines of blank cells.

    Raises:
        CorpusError: if the file is missing, cannot be read, is of another format, is not of the encoding that its byte
            order mark says or has no line under the header, if a column occurs twice or holds a NUL character, or if a
            quote is opened and not closed: what follows it would be lost.
    """
    try:
        content = path.read_bytes()  # once: a pipe has it no second time
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file; expected {expected}") from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    _refuse_other_formats(path, content, expected)
    try:
        text = content.decode("utf-16" if content[:2] in UTF_16 else encoding, "surrogateescape")
    except UnicodeError as error:  # of UTF-16 alone: bytes that are not UTF-8 become lone surrogates
        raise CorpusError(
            f"{path}: is not UTF-16, which its byte order mark says, or is cut off; expected {expected}; copy it "
            "again, or save it as UTF-8"
        ) from error
    if _is_json(text):
        raise CorpusError(f"{path}: found JSON, expected {expected}; save it as CSV, with a header")
    columns, lines = _parse(path, text)
    if any("\0" in column for column in columns):
        raise CorpusError(
            f"{path}: found a NUL character in the header, as in UTF-16 without a byte order mark; expected "
            f"{expected}; save it as UTF-8"
        )
    repeated = [column for column in columns if columns.count(column) > 1]
    if repeated:
        raise CorpusError(f"{path}: found column {repeated[0]!r} {columns.count(repeated[0])} times, expected once")
    if columns and not lines:
        raise CorpusError(f"{path}: no rows; expected at least one under the header")
    return CsvTable(path, columns, lines)


def read_captions(path: Path) -> list[str]:
    """Read all captions of a CSV file: those of its columns caption, caption_predicted, caption_1, caption_2, ...

    Returns:
        The captions that are not blank, row by row.

    Raises:
        CorpusError: if the file or a line of it cannot be read, or a line has no captions.
    """
    table = read_csv(path, "a CSV file with captions")
    columns = [column for column in table.columns if column in _SINGLE_CAPTION] + numbered_captions(table.columns)
    if not columns:
        raise table.unexpected_columns("caption, caption_predicted or caption_1, caption_2, ...")
    texts = table.texts(columns)
    for at, line in enumerate(table.lines):
        if not any(WORD.search(text) for text in texts[at * len(columns) : (at + 1) * len(columns)]):
            raise CorpusError(
                f"{path}, line {line.number}: found no captions in {', '.join(columns)}, expected at least one"
            )
    return [text for text in texts if WORD.search(text)]


def read_queries(path: Path) -> list[str]:
    """Read the queries of DCASE's Task 8 as it hands them out: the column `caption` of a CSV file, verbatim.

    Raises:
        CorpusError: if the file or a line of it cannot be read, the column is missing or a query is blank.
    """
    table = read_csv(path, "a CSV file with queries in a column caption")
    table.require("caption")
    queries = table.texts(["caption"])
    table.refuse_blank("caption")
    return queries


def numbered_captions(columns: Iterable[str]) -> list[str]:
    """Return those of some columns that are called caption_1, caption_2, ..., by their number."""
    numbers = {column: int(match[1]) for column in columns if (match := _NUMBERED_CAPTION.fullmatch(column))}
    return sorted(numbers, key=numbers.__getitem__)


def _refuse_other_formats(path: Path, content: bytes, expected: str) -> None:
    """Raise CorpusError for the content of a spreadsheet, an archive or a pointer in the place of a CSV file."""
    refuse_pointer(content, path, "CSV file", CorpusError)
    if kind := known_kind(content[:KIND_BYTES]):
        workbook = ", which an Excel workbook (.xlsx) is, too" if "ZIP" in kind else ""
        raise CorpusError(f"{path}: found {kind}{workbook}, expected {expected}; unpack it, or save it as CSV")


def _is_json(text: str) -> bool:
    """Return whether text begins with an object or a list of JSON, which a header can only seem to do."""
    text = text.lstrip()
    if not text.startswith(("{", "[")):
        return False
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _delimiter(text: str) -> tuple[str, int]:
    """Return what separates the fields of CSV, and where its header is to be looked for: after a line `sep=;`."""
    if said := SEPARATOR.match(text):
        return said[1], said.end()
    header = HEADER.match(text)
    unquoted = QUOTED.sub("", header[1]) if header else ""
    return next((one for one in DELIMITERS if one in unquoted), DELIMITERS[0]), 0


def _parse(path: Path, text: str) -> tuple[list[str], list[Line]]:
    delimiter, start = _delimiter(text)
    skipped = 1 if start else 0  # lines
    reader = csv.reader(io.StringIO(text[start:], newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    lines: list[Line] = []
    while True:
        number = skipped + reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return columns, lines
        except csv.Error as error:
            # An error within one line concerns that line alone. An error after several is a quote that is not closed.
            if skipped + reader.line_num > number:
                raise CorpusError(f"{path}, line {number}: is a quote opened and not closed? ({error})") from error
            if not columns:
                raise CorpusError(f"{path}, line {number}: not CSV ({error}); expected a header") from error
            lines.append(Line(number, dict.fromkeys(columns, ""), f"not CSV ({error})"))
            continue
        if not columns:
            columns = _without_blank_end([field.strip() for field in fields], 0)
        elif len(fields) == 1 or any(field.strip() for field in fields):
            fields = _without_blank_end(fields, len(columns))
            cells = dict(zip(columns, fields + [""] * (len(columns) - len(fields))))
            excess = "more fields than the header has columns; is a comma unquoted?"
            lines.append(Line(number, cells, excess if len(fields) > len(columns) else ""))


def _without_blank_end(fields: list[str], least: int) -> list[str]:
    """Return the fields without blank ones at their end, as far as there are more than `least`."""
    number = len(fields)
    while number > least and not fields[number - 1].strip():
        number -= 1
    return fields[:number]
