"""Adapter for AudioCaps: the official CSV files and the copies grouped by clip that ACT and WavCaps use.

Official (https://github.com/cdjkim/audiocaps): audiocap_id, youtube_id, start_time, caption; one line for each caption.
Copies: file_name, caption or file_name, caption_1 .. caption_5; one line for each clip, `Y<youtube id>.wav`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from corpora.files import AudioFolder, find_one
from corpora.ids import parse_youtube_name, whole_number, without_suffix
from corpora.rows import Row, split_usable
from corpora.settings import CorpusSettings, Split, Terms
from corpora.table import CorpusTable
from models.csv_files import CsvTable, read_csv

_NAMES = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
_CAPTIONS = (
    ".", "dataset", "csv_files", "csv_files_v1", "csv_files_v2",
    "AUDIOCAPS", "AUDIOCAPS/csv_files_v1", "AUDIOCAPS/csv_files_v2",
)  # fmt: skip
_AUDIO = (".", "audio", "waveforms", "audio_32000Hz", "AUDIOCAPS/audio_32000Hz")


class AudioCapsCorpus(CorpusSettings):
    """AudioCaps: `root` holds `train.csv`, `val.csv` and `test.csv`, and the audio in `train/`, `val/` and `test/`."""

    terms = Terms("the captions are MIT, the audio is YouTube's", commercial_use=False)

    kind: Literal["audiocaps"]
    splits: list[Split] = Field(min_length=1, description="splits that are used")
    captions_folder: str | None = Field(
        None, description="folder of the CSV files, relative to `root`; if none, the usual places are searched"
    )
    audio_folder: str | None = Field(
        None,
        description="folder of the audio, relative to `root`, with `train/`, `val/` and `test/` or all files together; "
        "if none, the usual places are searched",
    )

    def read(self, split: str) -> CorpusTable:
        """Read one split. Clips that are not in the audio folder are set aside: many videos are gone.

        A clip_id is `<youtube id>_<start>` with the official files, and file_name without its suffix with the copies.

        Raises:
            CorpusError: if the captions or the audio folder are missing, or the captions cannot be read.
        """
        captions = find_one(
            "captions file",
            [self.folder / place / f"{name}.csv" for place in self._captions() for name in _NAMES[split]],
            "set `root`, or `captions_folder` in it, to the folder of train.csv, val.csv and test.csv",
        )
        audio = AudioFolder(self._audio(split))
        table = read_csv(captions, "AudioCaps' captions")
        if {"youtube_id", "start_time", "caption"} <= set(table.columns):
            return split_usable(_official(table, audio), audio)
        columns = ["caption"] if {"file_name", "caption"} <= set(table.columns) else table.clip_captions()
        return split_usable(_copies(table, columns, audio), audio)

    def _captions(self) -> Iterable[str]:
        return _CAPTIONS if self.captions_folder is None else [self.captions_folder]

    def _audio(self, split: str) -> Path:
        given = self.audio_folder
        inside = [self.folder / place / name for place in ([given] if given else _AUDIO) for name in _NAMES[split]]
        if given and not any(path.exists() for path in inside):
            return self.folder / given
        return find_one("audio folder", inside, "set `audio_folder` to the folder of the audio, in `root`")


def _official(table: CsvTable, audio: AudioFolder) -> list[Row]:
    """Return one row for each clip, with the captions of all its lines."""
    started, whole = _by_video(audio)
    clips: dict[tuple[str, str], Row] = {}
    rows: list[Row] = []
    for line in table.lines:
        youtube_id, start = line.cells["youtube_id"].strip(), whole_number(line.cells["start_time"].strip())
        clip_id = f"{youtube_id}_{start}"
        name = started.get((youtube_id, start)) or whole.get(youtube_id) or f"{clip_id}.flac"
        row = Row.from_line(
            table, line, ["caption"], name if youtube_id else "", clip_id=clip_id, youtube_id=youtube_id
        )
        first = row if row.reason else clips.setdefault((youtube_id, start), row)
        if first is row:
            rows.append(row)
        else:
            first.captions = [*first.captions, *row.captions]
    return rows


def _copies(table: CsvTable, captions: list[str], audio: AudioFolder) -> Iterator[Row]:
    """Yield one row for each line. The audio may have another of the names that its video goes by."""
    started, whole = _by_video(audio)
    only = {youtube_id: name for (youtube_id, _), name in started.items()} | whole
    for line in table.lines:
        name = line.cells["file_name"]
        youtube_id, _ = parse_youtube_name(name)
        found = name if name in audio else only.get(youtube_id, name)
        yield Row.from_line(table, line, captions, found, clip_id=without_suffix(name), youtube_id=youtube_id)


def _by_video(audio: AudioFolder) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """Return the folder's files by (video, start in seconds) and, where names have no start, by video."""
    started: dict[tuple[str, str], str] = {}
    whole: dict[str, str] = {}
    for name in sorted(audio.files(), reverse=True):
        youtube_id, start = parse_youtube_name(name)
        if start:
            started[youtube_id, start] = name
        elif youtube_id:
            whole[youtube_id] = name
    return started, whole
