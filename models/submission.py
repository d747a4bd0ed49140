"""Write submission files of the DCASE challenge in the official columns, and check them before they are sent."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from .errors import InputError
from .files import atomic_write
from .text import is_unicode

CAPTION_COLUMNS = ["file_name", "caption_predicted"]
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
LISTED = 10  # file names in a row of Task 8
RETRIEVAL_COLUMNS = ["caption", *(f"fname_{rank}" for rank in range(1, LISTED + 1))]


class SubmissionError(InputError, ValueError):
    """The challenge would refuse a file; the message names file, row, what was found and what was expected."""


# --- Task 6: captioning --------------------------------------------------------------------------------------------


def write_captions(path: Path, file_names: Sequence[str], captions: Sequence[str], pool: Sequence[str]) -> None:
    """Write file_name,caption_predicted, a row for each audio file, and check the CSV file.

    Args:
        path: the CSV file; a reader sees the old or the new one.
        file_names: the names of the audio files that have a caption.
        captions: the caption of each; written as `one_line` returns it.
        pool: names of all audio files of the split.

    Raises:
        SubmissionError: as of `refuse_names` or `check_captions`.
    """
    refuse_names(path, pool)
    rows = ([name, one_line(caption)] for name, caption in zip(file_names, captions, strict=True))
    _write(path, CAPTION_COLUMNS, rows, lambda written: check_captions(written, pool))


def check_captions(path: Path, pool: Collection[str]) -> None:
    """Read a Task 6 file as the challenge would; its rows may be in any order.

    Raises:
        SubmissionError: naming the first row that is wrong: not UTF-8, another header, a blank caption or one that
            is not a single line, a name that is not in the pool or occurs twice; or a file of the pool without a row.
    """
    header, *rows = _read(path)
    if header != CAPTION_COLUMNS:
        raise SubmissionError(f"{path}: header {','.join(header)!r}, expected {','.join(CAPTION_COLUMNS)!r}")
    known, seen = set(pool), set[str]()
    for number, row in enumerate(rows, 1):
        where = f"{path}: row {number}"
        if len(row) != len(CAPTION_COLUMNS):
            raise SubmissionError(f"{where}: {len(row)} cells, expected {len(CAPTION_COLUMNS)}")
        name, caption = row
        if name not in known:
            raise SubmissionError(f"{where}: {name!r} is not among the {len(known)} files")
        if name in seen:
            raise SubmissionError(f"{where}: {name!r} has a row already, expected one for each file")
        if not caption.strip():
            raise SubmissionError(f"{where}: the caption of {name!r} is blank")
        if caption != one_line(caption):
            raise SubmissionError(f"{where}: caption {caption!r}, expected one line without control characters")
        seen.add(name)
    if missing := [name for name in pool if name not in seen]:
        raise SubmissionError(f"{path}: {len(missing)} of {len(known)} files have no row, {missing[0]!r} among them")


def one_line(text: str) -> str:
    """Return the text with each run of white space and control characters as one space, and none at its ends."""
    return " ".join(CONTROL.sub(" ", text).split())


# --- Task 8: retrieval ---------------------------------------------------------------------------------------------


def write_retrieval(path: Path, queries: Sequence[str], ranking: Sequence[Sequence[str]], pool: Sequence[str]) -> None:
    """Write caption,fname_1,...,fname_10, a row for each query in the order given, and check the CSV file.

    Args:
        path: the CSV file; a reader sees the old or the new one.
        queries: written verbatim.
        ranking: the file names of each query, best first; those after the tenth are left out.
        pool: names of all files searched.

    Raises:
        SubmissionError: the pool is too small, or as of `refuse_names` or `check_retrieval`.
    """
    if len(pool) < LISTED:
        raise SubmissionError(f"{path}: {len(pool)} files to choose from, expected at least {LISTED}")
    refuse_names(path, pool)
    rows = ([query, *names[:LISTED]] for query, names in zip(queries, ranking, strict=True))
    _write(path, RETRIEVAL_COLUMNS, rows, lambda written: check_retrieval(written, queries, pool))


def check_retrieval(path: Path, queries: Sequence[str], pool: Collection[str]) -> None:
    """Read a Task 8 file as the challenge would.

    Raises:
        SubmissionError: naming the first row that is wrong: not UTF-8, another header, a missing, changed, moved or
            additional query, other than 10 distinct names, or a name that is not in the pool.
    """
    header, *rows = _read(path)
    if header != RETRIEVAL_COLUMNS:
        raise SubmissionError(f"{path}: header {','.join(header)!r}, expected {','.join(RETRIEVAL_COLUMNS)!r}")
    known = set(pool)
    for number, (row, query) in enumerate(zip(rows, queries, strict=False), 1):
        where = f"{path}: row {number}"
        if len(row) != len(RETRIEVAL_COLUMNS):
            raise SubmissionError(f"{where}: {len(row)} cells, expected {len(RETRIEVAL_COLUMNS)}")
        caption, *names = row
        if caption != query:
            raise SubmissionError(f"{where}: caption {caption!r}, expected the query {query!r}")
        if len(set(names)) < LISTED:
            raise SubmissionError(f"{where}: {len(set(names))} different names, expected {LISTED}")
        if unknown := [name for name in names if name not in known]:
            raise SubmissionError(f"{where}: {unknown[0]!r} is not among the {len(known)} files")
    if len(rows) != len(queries):
        raise SubmissionError(f"{path}: {len(rows)} rows, expected one for each of {len(queries)} queries")


# --- files ---------------------------------------------------------------------------------------------------------


def refuse_names(path: Path, pool: Sequence[str]) -> None:
    """Raise SubmissionError if the names of audio files cannot be in a submission, which no work need be done to tell.

    File systems allow names that are no text, and files in several folders may have one name: a row could mean either.
    """
    if odd := [name for name in pool if not is_unicode(name)]:
        others = f", and that of {len(odd) - 1} more" if len(odd) > 1 else ""
        raise SubmissionError(
            f"{path}: the name {odd[0]!r}{others} is not UTF-8, expected names that a CSV file can hold; rename such "
            "files, or leave them out"
        )
    twice = [name for name, times in Counter(pool).items() if times > 1]
    if twice:
        raise SubmissionError(f"{path}: {len(twice)} names stand for several files, {twice[0]!r} among them")


def _write(path: Path, header: list[str], rows: Iterable[list[str]], check: Callable[[Path], None]) -> None:
    """Write CSV, whole and checked, or nothing."""
    with atomic_write(path) as partial:
        try:
            with partial.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(header)
                writer.writerows(rows)
            check(partial)
        except UnicodeEncodeError as error:
            raise SubmissionError(f"{path}: {error.object!r} is not Unicode text") from error
        except SubmissionError as error:
            raise SubmissionError(str(error).replace(str(partial), str(path))) from error


def _read(path: Path) -> list[list[str]]:
    """Read the rows of a CSV file, at least one."""
    if not path.is_file():
        raise SubmissionError(f"{path}: no such file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SubmissionError(f"{path}: not CSV in UTF-8: {error}") from error
    if not rows:
        raise SubmissionError(f"{path}: empty, expected a header")
    return rows
