"""Adapter for AudioCaps: the official CSV files and the gathered copies that ACT and WavCaps use.

Official (https://github.com/cdjkim/audiocaps): audiocap_id, youtube_id, start_time, caption; a line a caption.
Copies: file_name, caption or file_name, caption_1 .. caption_5; a line a clip, file_name is `Y<youtube id>.wav`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from corpora.files import AudioFolder, Line, caption_columns, find, read_csv
from corpora.ids import parse_youtube_name, whole_number, without_suffix
from corpora.rows import Row, split_usable
from corpora.settings import CorpusSettings, Split

_NAMES = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
_CAPTIONS = (
    ".", "dataset", "csv_files", "csv_files_v1", "csv_files_v2",
    "AUDIOCAPS", "AUDIOCAPS/csv_files_v1", "AUDIOCAPS/csv_files_v2",
)  # fmt: skip
_AUDIO = (".", "audio", "waveforms", "audio_32000Hz", "AUDIOCAPS/audio_32000Hz")


class AudioCapsCorpus(CorpusSettings):
    """`root` holds train.csv, val.csv and test.csv, and the audio in train/, val/ and test/."""

    kind: Literal["audiocaps"]
    splits: list[Split] = Field(min_length=1)
    captions_folder: str | None = Field(None, description="of the CSV files, in root; looked for when left out")
    audio_folder: str | None = Field(
        None, description="in root: has train/, val/, test/, or all files of all splits; looked for when left out"
    )

    def read(self, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Read one split. Clips that are not in the audio folder are set aside: many videos are gone.

        Returns:
            The table and the quarantine, as `corpora.rows.split_usable`. A clip_id is `<youtube id>_<start>` with the
            official files, and file_name less its suffix with the copies.

        Raises:
            CorpusError: if the captions or the audio folder are missing, or the captions cannot be read.
        """
        sheet = find(
            "captions file",
            [self.folder / place / f"{name}.csv" for place in self._captions() for name in _NAMES[split]],
            "set `root`, or `captions_folder` in it, to the folder of train.csv, val.csv and test.csv",
        )
        audio = AudioFolder(self._audio(split))
        columns, lines = read_csv(sheet, "AudioCaps' captions")
        if {"youtube_id", "start_time", "caption"} <= set(columns):
            return split_usable(_official(sheet, lines, audio), audio)
        captions = ["caption"] if {"file_name", "caption"} <= set(columns) else caption_columns(sheet, columns)
        return split_usable(_copies(sheet, lines, captions, audio), audio)

    def _captions(self) -> Iterable[str]:
        return _CAPTIONS if self.captions_folder is None else [self.captions_folder]

    def _audio(self, split: str) -> Path:
        given = self.audio_folder
        inside = [self.folder / place / name for place in ([given] if given else _AUDIO) for name in _NAMES[split]]
        if given and not any(path.exists() for path in inside):
            return self.folder / given
        return find("audio folder", inside, "set `audio_folder` to the folder of the audio, in `root`")


def _official(sheet: Path, lines: list[Line], audio: AudioFolder) -> Iterator[Row]:
    """A row a clip, with the captions of all its lines."""
    started, whole = _by_video(audio)
    clips: dict[tuple[str, str], list[str]] = {}
    rows: list[Row] = []
    for line in lines:
        youtube_id, start = line.cells["youtube_id"].strip(), whole_number(line.cells["start_time"].strip())
        if not line.reason and (youtube_id, start) in clips:
            clips[youtube_id, start].append(line.cells["caption"])
            continue
        captions = [line.cells["caption"]]
        clip_id = f"{youtube_id}_{start}"
        name = started.get((youtube_id, start)) or whole.get(youtube_id) or f"{clip_id}.flac"
        rows.append(
            Row(
                f"{sheet.name} line {line.number}",
                name if youtube_id else "",
                captions,
                clip_id,
                youtube_id=youtube_id,
                reason=line.reason,
            )
        )
        if not line.reason:
            clips[youtube_id, start] = captions
    yield from rows


def _copies(sheet: Path, lines: list[Line], captions: list[str], audio: AudioFolder) -> Iterator[Row]:
    started, whole = _by_video(audio)
    only = {youtube_id: name for (youtube_id, _), name in started.items()} | whole
    for line in lines:
        name = line.cells["file_name"]
        youtube_id, _ = parse_youtube_name(name)
        yield Row(
            f"{sheet.name} line {line.number}",
            name if name in audio else only.get(youtube_id, name),
            [line.cells[column] for column in captions],
            without_suffix(name),
            youtube_id=youtube_id,
            reason=line.reason,
        )


def _by_video(audio: AudioFolder) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """The folder's files by (video, start in seconds) and, where names have no start, by video."""
    started: dict[tuple[str, str], str] = {}
    whole: dict[str, str] = {}
    for name in sorted(audio.files(), reverse=True):
        youtube_id, start = parse_youtube_name(name)
        if start:
            started[youtube_id, start] = name
        elif youtube_id:
            whole[youtube_id] = name
    return started, whole
