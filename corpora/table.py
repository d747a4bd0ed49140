"""The one table that every corpus is read into: a row a clip."""

from __future__ import annotations

import pandas as pd

COLUMNS = ("clip_id", "path", "captions")


class CorpusError(ValueError):
    """A corpus cannot be used; the message names the file, the field, what was found and what was expected."""


def clip_table(rows: list[tuple[str, str, list[str]]]) -> pd.DataFrame:
    """Make the table from (clip_id, path, captions) rows.

    Returns:
        A frame with columns `clip_id` (str, unique), `path` (str, absolute) and `captions` (list of str).

    Raises:
        CorpusError: if two rows share a clip_id.
    """
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    repeated = table.loc[table["clip_id"].duplicated(), "clip_id"]
    if len(repeated):
        raise CorpusError(f"clip_id must be unique; {repeated.iloc[0]!r} occurs {len(repeated) + 1} times or more")
    return table
