"""Adapter for Clotho v2.1 (https://zenodo.org/records/4783391), as the archives unpack or as aac-datasets leaves it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from corpora.files import AudioFolder, caption_columns, find, read_csv
from corpora.rows import Row, split_usable
from corpora.settings import CorpusSettings, Split
from corpora.table import CorpusError

logger = logging.getLogger(__name__)

# Clotho's evaluation split is DCASE's "development-testing"; the hidden one has no captions.
_NAMES = {"train": "development", "validation": "validation", "test": "evaluation"}


class ClothoCorpus(CorpusSettings):
    """`root` holds clotho_captions_*.csv and clotho_metadata_*.csv, and the audio in development/ and so on.

    aac-datasets' folder CLOTHO_v2.1, or the one that it lies in, is understood too.
    """

    kind: Literal["clotho"]
    splits: list[Split] = Field(min_length=1)

    def read(self, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Read one split.

        The Freesound ids come from the metadata. Without that file a warning is logged and all of them are "".

        Returns:
            The table and the quarantine, as `corpora.rows.split_usable`.

        Raises:
            CorpusError: if the captions or the audio folder are missing, or the captions cannot be read.
        """
        name = _NAMES[split]
        sheet = find(
            "captions file",
            [folder / f"clotho_captions_{name}.csv" for folder in self._places("clotho_csv_files")],
            "set `root` to the folder with Clotho's CSV files (https://zenodo.org/records/4783391)",
        )
        audio = find(
            "audio folder",
            [folder / name for folder in self._places("clotho_audio_files")],
            f"unpack clotho_audio_{name}.7z there",
        )
        columns, lines = read_csv(sheet, "Clotho's captions")
        captions = caption_columns(sheet, columns)
        sound_ids = _sound_ids(sheet.with_name(f"clotho_metadata_{name}.csv"))
        _warn_of_unknown([line.cells["file_name"] for line in lines], sound_ids, sheet)
        rows = (
            Row(
                f"{sheet.name} line {line.number}",
                line.cells["file_name"],
                [line.cells[column] for column in captions],
                freesound_id=sound_ids.get(line.cells["file_name"], ""),
                reason=line.reason,
            )
            for line in lines
        )
        return split_usable(rows, AudioFolder(audio))

    def exclusion_lists(self) -> list[Path]:
        """The metadata of the validation and evaluation splits: their clips count even where their audio is absent."""
        names = [f"clotho_metadata_{_NAMES[split]}.csv" for split in ("validation", "test")]
        sheets = [folder / name for folder in self._places("clotho_csv_files") for name in names]
        return [sheet for sheet in sheets if sheet.is_file()]

    def _places(self, of_aac_datasets: str) -> list[Path]:
        root = self.folder
        return [root, root / of_aac_datasets, root / "CLOTHO_v2.1" / of_aac_datasets]


def _sound_ids(sheet: Path) -> dict[str, str]:
    """Freesound ids by file_name; none if there is no metadata file."""
    if not sheet.exists():
        return {}
    columns, lines = read_csv(sheet, "Clotho's metadata", encoding="iso-8859-1")
    if not {"file_name", "sound_id"} <= set(columns):
        raise CorpusError(f"{sheet}: found columns {', '.join(columns)}; expected file_name and sound_id")
    return {line.cells["file_name"]: line.cells["sound_id"] for line in lines}


def _warn_of_unknown(names: list[str], sound_ids: dict[str, str], sheet: Path) -> None:
    unknown = sum(name not in sound_ids for name in names)
    if unknown:
        metadata = sheet.with_name(sheet.name.replace("captions", "metadata"))
        logger.warning(
            "%s: %s; the Freesound ids of %d of %d clips are unknown, so that no exclusion list reaches these",
            metadata, "does not list all clips" if sound_ids else "no such file", unknown, len(names),
        )  # fmt: skip
