"""Adapter for one's own recordings, in Clotho's columns: a CSV file a split, or one for all."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from corpora.files import AudioFolder, Line, caption_columns, read_csv
from corpora.rows import Row, ids_of, split_usable
from corpora.settings import SPLIT_NAMES, CorpusSettings, Split
from corpora.table import CorpusError


class FolderCorpus(CorpusSettings):
    """`<root>/<split>.csv` and the audio in `<root>/<split>/`, or `<root>/captions.csv` and the audio beside it.

    Columns: file_name, caption_1, caption_2, ...; captions.csv also split, unless it serves one split; and, if known,
    freesound_id (or sound_id) and youtube_id.
    """

    kind: Literal["folder"]
    splits: list[Split] = Field(min_length=1)

    def read(self, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """`read_folder` of one split."""
        return read_folder(self.root, split, len(self.splits))


def read_folder(root: str | Path, split: str, num_splits: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read one split.

    Args:
        root: the folder.
        split: of the CSV files in UTF-8 `<split>.csv` is taken, else captions.csv.
        num_splits: how many splits of the folder are in use; captions.csv without a column `split` can serve only one.

    Returns:
        The table and the quarantine, as `corpora.rows.split_usable`.

    Raises:
        CorpusError: if the CSV file or the audio folder is missing, or the CSV cannot be read, lacks columns or has no
            row of the split.
    """
    folder = Path(root).absolute()
    own, common = folder / f"{split}.csv", folder / "captions.csv"
    sheet = own if own.exists() or not common.exists() else common
    columns, lines = read_csv(sheet, f"{split}.csv, or captions.csv for all splits, in this folder")
    captions = caption_columns(sheet, columns)
    if sheet == common:
        lines = _of_split(sheet, columns, lines, split, num_splits)
    rows = (
        Row(
            f"{sheet.name} line {line.number}",
            line.cells["file_name"],
            [line.cells[column] for column in captions],
            reason=line.reason,
            **ids_of(line.cells),
        )
        for line in lines
    )
    return split_usable(rows, AudioFolder(folder if sheet == common else folder / split))


def _of_split(sheet: Path, columns: list[str], lines: list[Line], split: str, num_splits: int) -> list[Line]:
    """The lines of a split; those of none are set aside with each."""
    if "split" not in columns:
        if num_splits > 1:
            raise CorpusError(
                f"{sheet}: no column `split`, so it can serve one split only, and {num_splits} are asked for; add the "
                "column (train, validation or test) or write one CSV file a split"
            )
        return lines
    known = {name: canonical for canonical, names in SPLIT_NAMES.items() for name in names}
    found = [known.get(line.cells["split"].strip().lower()) for line in lines]
    if split not in found:
        values = ", ".join(sorted({line.cells["split"] for line in lines}))
        raise CorpusError(f"{sheet}: no row of {split}; the column `split` holds {values}")
    return [
        line if of else line._replace(reason=line.reason or f"no split is called {line.cells['split']!r}")
        for line, of in zip(lines, found)
        if of in (split, None)
    ]
