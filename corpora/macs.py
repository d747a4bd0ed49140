"""Adapter for MACS (https://zenodo.org/records/5114771): captions of clips of TAU Urban Acoustic Scenes 2019."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from corpora.files import AudioFolder, find_one
from corpora.rows import Row, split_usable
from corpora.settings import CorpusSettings
from corpora.table import CorpusTable
from models.errors import CorpusError
from models.files import refuse_pointer

_AUDIO = ("audio", "MACS/audio", "TAU-urban-acoustic-scenes-2019-development/audio")


class MacsCorpus(CorpusSettings):
    """MACS: `root` holds `MACS.yaml`, and the audio in `audio/`."""

    kind: Literal["macs"]
    splits: list[Literal["train"]] = Field(["train"], min_length=1, description="splits that are used; it has one")
    audio_folder: str | None = Field(
        None, description="folder of the WAV files, relative to `root`; if none, the usual places are searched"
    )

    def read(self, split: str) -> CorpusTable:
        """Read all clips, which make up the only split.

        Raises:
            CorpusError: if MACS.yaml or the audio folder is missing, or MACS.yaml does not have MACS's form.
        """
        file = find_one(
            "captions file",
            [self.folder / "MACS.yaml", self.folder / "MACS" / "MACS.yaml"],
            "set `root` to the folder of MACS.yaml (https://zenodo.org/records/5114771)",
        )
        places = _AUDIO if self.audio_folder is None else [self.audio_folder]
        audio = find_one(
            "audio folder",
            [self.folder / place for place in places],
            "set `audio_folder` to the folder of the WAV files, in `root`",
        )
        return split_usable(_rows(file), AudioFolder(audio))


def _rows(file: Path) -> Iterator[Row]:
    for number, clip in enumerate(_load(file)):
        origin = f"{file.name} item {number}"
        try:
            captions = [annotation["sentence"] for annotation in clip["annotations"]]
            name = str(clip["filename"])
        except (KeyError, TypeError):
            yield Row(origin, "", [], reason="expected filename, and annotations that have a sentence each")
            continue
        yield Row(origin, name, captions)


def _load(file: Path) -> list[Any]:
    try:
        # Everything as text, because a caption "No" is a word; by the C parser, because Python's takes a minute.
        read = file.read_bytes()
        refuse_pointer(read, file, "YAML", CorpusError)
        content = yaml.load(read, Loader=yaml.CBaseLoader)
    except (OSError, yaml.YAMLError) as error:
        raise CorpusError(f"{file}: cannot be read as YAML ({error})") from error
    clips = content.get("files") if isinstance(content, dict) else None
    if not isinstance(clips, list):
        raise CorpusError(f"{file}: expected a list under the key `files` as MACS has it")
    if not clips:
        raise CorpusError(f"{file}: no clips; expected at least one item under `files`")
    return clips
