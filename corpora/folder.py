"""Adapter for your own recordings, in Clotho's columns: a CSV file for each split, or one for all."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from corpora.files import AudioFolder
from corpora.ids import without_suffix
from corpora.rows import Row, ids_of, split_usable
from corpora.settings import SPLIT_NAMES, OwnCorpusSettings, Split
from corpora.table import CorpusTable
from models.csv_files import CsvTable, Line, read_csv
from models.errors import CorpusError

LABEL = "label"  # a column that is no caption: the clip's sound event or class


class FolderCorpus(OwnCorpusSettings):
    """Your own recordings: `<root>/<split>.csv` and the audio in `<root>/<split>/`, or `<root>/captions.csv` for all
    splits and the audio beside it.

    Columns: `file_name`, `caption_1`, `caption_2`, ...; in captions.csv also `split`, unless it serves one split; and,
    if known, `freesound_id` (or `sound_id`), `youtube_id` and `label`.
    """

    kind: Literal["folder"]
    splits: list[Split] = Field(min_length=1, description="splits that are used")

    def read(self, split: str) -> CorpusTable:
        """Read one split by `read_folder`."""
        return read_folder(self.root, split, len(self.splits))

    def labels(self, split: str) -> dict[str, tuple[str, ...]]:
        """Return what the column `label` of the CSV file says of each clip, where there is such a column."""
        table, lines, _ = _captions_of(self.root, split, len(self.splits))
        if LABEL not in table.columns:
            return {}
        return {
            without_suffix(line.cells["file_name"]): (line.cells[LABEL].strip(),)
            for line in lines
            if not line.reason and line.cells[LABEL].strip()
        }


def read_folder(root: str | Path, split: str, num_splits: int = 1) -> CorpusTable:
    """Read one split.

    Args:
        root: the folder.
        split: its captions are read from `<split>.csv`, else from `clotho_captions_<split>.csv`, else from
            captions.csv, all in UTF-8.
        num_splits: how many splits of the folder are in use; captions.csv without a column `split` can serve only one.

    Raises:
        CorpusError: if the CSV file or the audio folder is missing, or the CSV cannot be read, lacks columns or has no
            row of the split.
    """
    table, lines, audio = _captions_of(root, split, num_splits)
    captions = table.clip_captions()
    rows = (Row.from_line(table, line, captions, **ids_of(line.cells)) for line in lines)
    return split_usable(rows, AudioFolder(audio), may_be_fewer=True)


def _captions_of(root: str | Path, split: str, num_splits: int) -> tuple[CsvTable, list[Line], Path]:
    """Return the CSV file of a split, those of its lines that are of it, and the folder of the audio."""
    folder = Path(root).absolute()
    own, common = folder / f"{split}.csv", folder / "captions.csv"
    published = folder / f"clotho_captions_{split}.csv"
    file = next((file for file in (own, published, common) if file.exists()), own)
    table = read_csv(file, f"{split}.csv, or captions.csv for all splits, in this folder")
    if file == common:
        return table, _of_split(table, split, num_splits), folder
    return table, table.lines, folder / split


def _of_split(table: CsvTable, split: str, num_splits: int) -> list[Line]:
    """Return the lines of a split. Those with an unknown split are set aside with every split."""
    if "split" not in table.columns:
        if num_splits > 1:
            raise CorpusError(
                f"{table.path}: no column `split`, so it can serve one split only, and {num_splits} are asked for; add "
                "the column (train, validation or test) or write one CSV file for each split"
            )
        return table.lines
    known = {name: canonical for canonical, names in SPLIT_NAMES.items() for name in names}
    found = [known.get(line.cells["split"].strip().lower()) for line in table.lines]
    if split not in found:
        values = ", ".join(sorted({line.cells["split"] for line in table.lines}))
        raise CorpusError(f"{table.path}: no row of the split {split}; the column `split` holds {values}")
    return [
        line if of else line._replace(reason=line.reason or f"no split is called {line.cells['split']!r}")
        for line, of in zip(table.lines, found)
        if of in (split, None)
    ]
