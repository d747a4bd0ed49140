"""Write captions and timelines as a table for people, or for programs: JSON lines, CSV, tab-separated, subtitles."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from rich.table import Table
from rich.text import Text

from ..errors import InputError
from ..submission import one_line
from ..text import printable
from .options import Format

SUBTITLES = (Format.SRT, Format.VTT)
ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})  # of names, where tabs separate
Entry = dict[str, Any]  # a line of JSON: `path` and the fields of a Caption, or of a timeline with `segments`


@dataclass(frozen=True)
class Row:
    """A caption as a line; `start_s` and `end_s` in a timeline."""

    path: str
    text: str
    score: float
    start_s: float | None = None
    end_s: float | None = None

    def tsv(self) -> str:
        """Return the cells separated by tabs, in one line whatever the file is called."""
        path, *others = self.cells()
        return "\t".join([path.translate(ESCAPES), *others])

    def cells(self) -> list[str]:
        """Return all but the score as text, times in seconds to the millisecond."""
        times = [f"{at:.3f}" for at in (self.start_s, self.end_s) if at is not None]
        return [self.path, *times, self.text]


def check_format(wanted: Format, files: int, timed: bool) -> None:
    """Raise InputError where subtitles are wanted of more than one file, or without a timeline."""
    if wanted in SUBTITLES and not (timed and files == 1):
        found = f"{files} files" if files > 1 else "no --window"
        raise InputError(
            f"--format {wanted}: found {found}, expected one file and --window SECONDS: subtitles are a timeline of it"
        )


def all_lines(wanted: Format, entries: Iterable[Entry], first: bool = True) -> Iterator[str]:
    """Yield the lines of entries, after those of the file if they are the first, in any format but the table.

    File names that are not Unicode keep their bytes, but in JSON, where they are escaped. Tabs, line ends and
    backslashes in names are escaped where tabs separate.
    """
    for entry in entries:
        if first:
            yield from _header(wanted, "segments" in entry)
        first = False
        if wanted is Format.JSON:
            yield printable(json.dumps(entry, ensure_ascii=False))
        elif wanted in SUBTITLES:
            yield from _cues(wanted, rows(entry))
        else:
            for row in rows(entry):
                yield row.tsv() if wanted is Format.TSV else csv_line([*row.cells(), repr(row.score)])


def _header(wanted: Format, timed: bool) -> list[str]:
    columns = ["path", *(["start_s", "end_s"] if timed else []), "caption", "score"]
    return {Format.CSV: [",".join(columns)], Format.VTT: ["WEBVTT", ""]}.get(wanted, [])


def rows(entry: Entry) -> list[Row]:
    """Return the captions of an entry, each as one line of text."""
    if "segments" not in entry:
        return [Row(entry["path"], one_line(entry["text"]), entry["score"])]
    return [
        Row(entry["path"], one_line(one["text"]), one["score"], one["start_s"], one["end_s"])
        for one in entry["segments"]
    ]


def table(entries: Sequence[Entry]) -> Table:
    """Return a table of all entries; the path of a timeline stands in its first row alone."""
    timed = any("segments" in entry for entry in entries)
    made = Table("file", *(["from", "to"] if timed else []), "caption", "score", header_style="bold")
    for number, row in ((number, row) for entry in entries for number, row in enumerate(rows(entry))):
        times = [_clock(at, 1) for at in (row.start_s, row.end_s) if at is not None]
        cells = ("" if number else row.path, *times, row.text, f"{row.score:.3f}")
        made.add_row(*(Text(printable(cell)) for cell in cells))
    return made


def _clock(seconds: float, digits: int) -> str:
    """Return a time as 01:02:03.500, with a number of decimals."""
    parts = round(seconds * 10**digits)
    whole, decimals = divmod(parts, 10**digits)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{decimals:0{digits}d}"


def csv_line(cells: Sequence[str]) -> str:
    """Return a line of CSV, quoted where it must be, without its end."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerow(cells)  # which Python quotes in cells, and nothing else
    return written.getvalue().removesuffix("\r\n")


def _cues(wanted: Format, listed: Sequence[Row]) -> Iterator[str]:
    """Yield subtitles: neighbours with equal captions are one, and none is shown together with another.

    Where windows overlap, the caption shown is that of the window whose middle is nearest.
    """
    for number, row in enumerate(_merged(_apart(listed)), 1):
        times = " --> ".join(_clock(at or 0.0, 3) for at in (row.start_s, row.end_s))
        text = row.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        yield from (str(number), *((times.replace(".", ","), row.text) if wanted is Format.SRT else (times, text)), "")


def _apart(listed: Sequence[Row]) -> list[Row]:
    """Return rows that do not overlap: two that did meet in the middle."""
    found = list(listed)
    for at, (before, after) in enumerate(pairwise(listed)):
        if (before.end_s or 0.0) > (after.start_s or 0.0):
            middle = ((before.end_s or 0.0) + (after.start_s or 0.0)) / 2
            found[at], found[at + 1] = replace(found[at], end_s=middle), replace(found[at + 1], start_s=middle)
    return found


def _merged(listed: Sequence[Row]) -> Iterator[Row]:
    """Yield rows, those with equal captions that follow each other without a gap as one."""
    last: Row | None = None
    for row in listed:
        if last and (last.text, last.end_s) == (row.text, row.start_s):
            last = replace(last, end_s=row.end_s)
            continue
        if last:
            yield last
        last = row
    if last:
        yield last
