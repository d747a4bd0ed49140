"""The one table that every corpus is read into: a row a clip."""

from __future__ import annotations

import pandas as pd

from models.errors import InputError

COLUMNS = ("clip_id", "path", "captions", "freesound_id", "youtube_id")
QUARANTINE_COLUMNS = ("clip_id", "path", "reason")


class CorpusError(InputError, ValueError):
    """A corpus cannot be used; the message names the file, the field, what was found and what was expected."""

    def __init__(self, message: str) -> None:
        # What it quotes may be no UTF-8; the message is, so that it can be printed.
        super().__init__(message.encode(errors="backslashreplace").decode())


def clip_table(rows: list[tuple[str, str, list[str], str, str]]) -> pd.DataFrame:
    """Make the table from (clip_id, path, captions, freesound_id, youtube_id) rows.

    Returns:
        A frame with columns `clip_id` (str, unique), `path` (str, absolute; `<file>.parquet#<row>` for audio inside a
        Parquet file), `captions` (list of str), `freesound_id` and `youtube_id` (str, "" where unknown).

    Raises:
        CorpusError: if two rows share a clip_id.
    """
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    repeated = table.loc[table["clip_id"].duplicated(), "clip_id"]
    if len(repeated):
        raise CorpusError(f"clip_id must be unique; {repeated.iloc[0]!r} occurs {len(repeated) + 1} times or more")
    return table
