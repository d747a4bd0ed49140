"""Adapter for Clotho v2.1 (https://zenodo.org/records/4783391), as its archives unpack or as aac-datasets does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import Field

from corpora.files import AudioFolder, find_one
from corpora.rows import Row, split_usable
from corpora.settings import CorpusSettings, Split, Terms
from corpora.table import CorpusTable
from models.csv_files import read_csv

logger = logging.getLogger(__name__)

# Clotho's evaluation split is DCASE's "development-testing"; the hidden one has no captions.
_NAMES = {"train": "development", "validation": "validation", "test": "evaluation"}


class ClothoCorpus(CorpusSettings):
    """Clotho: `root` holds `clotho_captions_*.csv` and `clotho_metadata_*.csv`, and the audio in `development/`,
    `validation/` and `evaluation/`.

    aac-datasets' folder `CLOTHO_v2.1`, or the folder that it lies in, is understood, too.
    """

    terms = Terms("academic and non-commercial", commercial_use=False)

    kind: Literal["clotho"]
    splits: list[Split] = Field(min_length=1, description="splits that are used")

    def read(self, split: str) -> CorpusTable:
        """Read one split.

        The Freesound ids come from the metadata. Without that file a warning is logged and all of them are "".

        Raises:
            CorpusError: if the captions or the audio folder are missing, or captions or metadata cannot be read.
        """
        name = _NAMES[split]
        captions = find_one(
            "captions file",
            [folder / f"clotho_captions_{name}.csv" for folder in self._places("clotho_csv_files")],
            "set `root` to the folder with Clotho's CSV files (https://zenodo.org/records/4783391)",
        )
        audio = find_one(
            "audio folder",
            [folder / name for folder in self._places("clotho_audio_files")],
            f"unpack clotho_audio_{name}.7z there",
        )
        table = read_csv(captions, "Clotho's captions")
        columns = table.clip_captions()
        metadata = captions.with_name(f"clotho_metadata_{name}.csv")
        sound_ids = _sound_ids(metadata)
        _warn_of_unknown([line.cells["file_name"] for line in table.lines], sound_ids, metadata)
        rows = (
            Row.from_line(table, line, columns, freesound_id=sound_ids.get(line.cells["file_name"], ""))
            for line in table.lines
        )
        return split_usable(rows, AudioFolder(audio))

    def exclusion_lists(self) -> list[Path]:
        """Return the metadata of validation and evaluation: their clips are excluded even if their audio is absent."""
        names = [f"clotho_metadata_{_NAMES[split]}.csv" for split in ("validation", "test")]
        files = [folder / name for folder in self._places("clotho_csv_files") for name in names]
        return [file for file in files if file.is_file()]

    def _places(self, of_aac_datasets: str) -> list[Path]:
        root = self.folder
        return [root, root / of_aac_datasets, root / "CLOTHO_v2.1" / of_aac_datasets]


def _sound_ids(metadata: Path) -> dict[str, str]:
    """Return the Freesound ids by file_name; none if there is no metadata file."""
    if not metadata.exists():
        return {}
    table = read_csv(metadata, "Clotho's metadata", encoding="iso-8859-1")
    table.require("file_name", "sound_id")
    return {line.cells["file_name"]: line.cells["sound_id"] for line in table.lines}


def _warn_of_unknown(names: list[str], sound_ids: dict[str, str], metadata: Path) -> None:
    unknown = sum(name not in sound_ids for name in names)
    if unknown:
        logger.warning(
            "%s: %s; the Freesound ids of %d of %d clips are unknown, so no exclusion list can name them",
            metadata,
            "does not list all clips" if sound_ids else "no such file",
            unknown,
            len(names),
        )
