"""Print what a search found: as a table for people, or for programs as lines, CSV or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..console import count, say, show
from ..text import printable
from .formats import ESCAPES, csv_line
from .options import MatchFormat
from .output import print_data

if TYPE_CHECKING:
    from ..ensemble.index_search import Match


def print_matches(found: Sequence[Match], top_k: int, wanted: MatchFormat | None = None) -> None:
    """Print matches, best first, and say so where there are fewer than were asked for.

    Args:
        wanted: when left out a table in a terminal, and lines of rank, similarity and path where it is piped.
    """
    if wanted is MatchFormat.TABLE or (wanted is None and sys.stdout.isatty()):
        show(_table(found))
    else:
        for line in _lines(found, wanted):
            print_data(line)
    if len(found) < top_k:
        say(f"found {count(len(found), 'result')}, asked for {top_k}: there are no more")


def _lines(found: Sequence[Match], wanted: MatchFormat | None) -> Iterator[str]:
    timed = any(match.start_s is not None for match in found)
    if wanted is MatchFormat.CSV:
        yield ",".join(["rank", "similarity", "path", *(["start_s", "end_s"] if timed else [])])
    for rank, match in enumerate(found, 1):
        times = _times(match)
        if wanted is MatchFormat.JSON:
            known = {name: value for name, value in asdict(match).items() if value is not None}
            yield printable(json.dumps({"rank": rank, **known}, ensure_ascii=False))
        elif wanted is MatchFormat.CSV:
            yield csv_line([str(rank), repr(match.similarity), match.path, *(times or [""] * 2 * timed)])
        else:
            span = f"  {times[0]}-{times[1]} s" if times else ""
            yield f"{rank:3d}  {match.similarity:8.3f}  {match.path.translate(ESCAPES)}{span}"


def _table(found: Sequence[Match]) -> Table:
    timed = any(match.start_s is not None for match in found)
    made = Table("rank", "similarity", "file", *(["from s", "to s"] if timed else []), header_style="bold")
    for rank, match in enumerate(found, 1):
        cells = (str(rank), f"{match.similarity:.3f}", match.path, *_times(match))
        made.add_row(*(Text(printable(cell)) for cell in cells))
    return made


def _times(match: Match) -> list[str]:
    """Return beginning and end of a window in seconds; nothing of a whole file."""
    return [f"{at:.3f}" for at in (match.start_s, match.end_s) if at is not None]
