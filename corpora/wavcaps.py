"""Adapter for WavCaps (https://huggingface.co/datasets/cvssp/WavCaps): JSON and an audio folder for each source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from corpora.files import AudioFolder, find_one, read_json
from corpora.ids import parse_youtube_name, without_suffix
from corpora.rows import Row, split_usable
from corpora.settings import CorpusSettings, Terms
from corpora.table import CorpusTable
from models.errors import CorpusError

Source = Literal["AudioSet_SL", "BBC_Sound_Effects", "FreeSound", "SoundBible"]

_JSON = {
    "AudioSet_SL": "as_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "FreeSound": "fsd_final.json",
    "SoundBible": "sb_final.json",
}
_EXPECTED = '{"num_captions_per_audio": <number>, "data": [...]} as WavCaps has it'
_AUDIO = ("Audio", "audio", "waveforms", "WavCaps/Audio", ".")


class WavCapsCorpus(CorpusSettings):
    """WavCaps: `root` holds `json_files/<source>/*_final.json` as published, and FLAC files in `Audio/<source>/`."""

    terms = Terms("for academic use", commercial_use=False)
    overlaps = "Clotho's and AudioCaps' test sets"

    kind: Literal["wavcaps"]
    splits: list[Literal["train"]] = Field(["train"], min_length=1, description="splits that are used; it has one")
    sources: list[Source] = Field(list(get_args(Source)), min_length=1, description="sources that are used")
    audio_folder: str | None = Field(
        None,
        description="folder, relative to `root`, that has a folder `<source>/` or `<source>_flac/` for each source; if "
        "none, the usual places are searched",
    )

    def read(self, split: str) -> CorpusTable:
        """Read all sources, which make up the only split.

        A clip_id is `<source>/<id>`, because ids of two sources may be the same number. FreeSound's ids are Freesound
        ids; those of AudioSet_SL name the video.

        Raises:
            CorpusError: if a JSON file or an audio folder is missing, or a JSON file does not have WavCaps' form.
        """
        return CorpusTable.concatenate(self._read_source(source) for source in dict.fromkeys(self.sources))

    def exclusion_lists(self) -> list[Path]:
        """Return WavCaps' list of clips that are in test sets of captioning, and DCASE's list, if they are in `root`.

        The other two lists of WavCaps name training clips of AudioCaps, and test sets of classification.
        """
        folders = ("", "json_files", "json_files/blacklist", "blacklist")
        names = ("blacklist_exclude_test_ac.json", "dcase2024_task6_excluded_freesound_ids.csv")
        files = [self.folder / folder / name for folder in folders for name in names]
        return [file for file in files if file.is_file()]

    def _read_source(self, source: Source) -> CorpusTable:
        name = _JSON[source]
        file = find_one(
            f"JSON file of {source}",
            [self.folder / folder / source / name for folder in ("json_files", "WavCaps/json_files", "data/json_files")]
            + [self.folder / name],
            "set `root` to the folder of json_files/, or leave the source out of `sources`",
        )
        places = _AUDIO if self.audio_folder is None else [self.audio_folder]
        audio = AudioFolder(
            find_one(
                f"audio folder of {source}",
                [self.folder / place / folder for place in places for folder in (source, f"{source}_flac")],
                "unpack the archives and set `audio_folder` to the folder with a folder for each source",
            )
        )
        return split_usable(_rows(source, file, audio), audio)


def _rows(source: Source, file: Path, audio: AudioFolder) -> Iterator[Row]:
    items, columns = _load(file)
    names = {without_suffix(name): name for name in sorted(audio.files(), reverse=True)}
    for number, item in enumerate(items):
        origin = f"{file.name} item {number}"
        if not isinstance(item, dict):
            yield Row(origin, "", [], reason=f"found {type(item).__name__}; expected an object with id and caption")
            continue
        # AudioSet's ids end in .wav, whatever the format of the file.
        stem = without_suffix(str(item.get("id") or ""))
        yield Row(
            origin,
            names.get(stem, f"{stem}.flac" if stem else ""),
            [item.get(column) for column in columns],
            f"{source}/{stem}",
            freesound_id=stem if source == "FreeSound" else "",
            youtube_id=parse_youtube_name(stem)[0] if source == "AudioSet_SL" else "",
        )


def _load(file: Path) -> tuple[list[Any], list[str]]:
    """Return the items, and the keys of their captions: caption, or caption_1, caption_2, ... if a clip has several."""
    content = read_json(file, _EXPECTED)
    items = content.get("data") if isinstance(content, dict) else None
    count = content.get("num_captions_per_audio", 1) if isinstance(content, dict) else None
    if not isinstance(items, list) or not isinstance(count, int):
        raise CorpusError(f"{file}: found another form; expected {_EXPECTED}")
    if not items:
        raise CorpusError(f'{file}: no clips; expected at least one item in "data"')
    return items, ["caption"] if count == 1 else [f"caption_{number}" for number in range(1, count + 1)]
