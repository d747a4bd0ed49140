"""The one table that every corpus is read into: a row for each clip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from models.errors import CorpusError

COLUMNS = ("clip_id", "path", "captions", "freesound_id", "youtube_id")
QUARANTINE_COLUMNS = ("clip_id", "path", "reason")
SHOWN = 5  # clips of a split whose reasons are said


@dataclass(frozen=True, eq=False)
class CorpusTable:
    """The clips of a split, and those that were set aside.

    clips: columns `clip_id` (str, unique), `path` (str, absolute; `<file>.parquet#<row>` for audio inside a Parquet
        file, or a `corpora.mixing.Mixture`), `captions` (list of str, at least one), `freesound_id` and `youtube_id`
        (str, "" where unknown; several are separated by blanks). No rows if all clips were set aside.
    quarantine: columns `clip_id`, `path` and `reason` (str) of the clips that cannot be used.
    """

    clips: pd.DataFrame
    quarantine: pd.DataFrame

    @classmethod
    def concatenate(cls, parts: Iterable[CorpusTable]) -> CorpusTable:
        """Return one table of the rows of all parts, in their order; there must be at least one part."""
        clips, quarantines = zip(*((part.clips, part.quarantine) for part in parts))
        return cls(pd.concat(clips, ignore_index=True), pd.concat(quarantines, ignore_index=True))


def clip_frame(rows: list[tuple[str, str, list[str], str, str]]) -> pd.DataFrame:
    """Return the frame of (clip_id, path, captions, freesound_id, youtube_id) rows, as `CorpusTable.clips`.

    Raises:
        CorpusError: if two rows share a clip_id.
    """
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    repeated = table.loc[table["clip_id"].duplicated(), "clip_id"]
    if len(repeated):
        first = repeated.iloc[0]
        raise CorpusError(f"clip_id: found {first!r} {(table['clip_id'] == first).sum()} times, expected once")
    return table


def check_not_empty(usable: Mapping[tuple[str, str], int], set_aside: pd.DataFrame, record: Path | None = None) -> None:
    """Refuse splits of which no clip can be used.

    Args:
        usable: numbers of usable clips, by corpus and split.
        set_aside: the other clips: columns `corpus`, `split` and `reason`.
        record: the file that has all of these, for the message.

    Raises:
        CorpusError: naming each of these splits, and the first reasons.
    """
    reasons = {key: list(rows) for key, rows in set_aside.groupby(["corpus", "split"])["reason"]}
    lines: list[str] = []
    for key in [key for key, number in usable.items() if not number]:
        own = reasons.get(key, [])
        more = [f"and {len(own) - SHOWN:,} more"] if len(own) > SHOWN else []
        lines.append(f"{'/'.join(key)}: no usable clip, expected at least one; {len(own):,} set aside:")
        lines += [f"  {reason}" for reason in own[:SHOWN] + more]
    if lines:
        raise CorpusError("\n".join([*lines, *([f"{record} says why for each"] if record else [])]))
