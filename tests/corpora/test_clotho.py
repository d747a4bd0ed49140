"""Clotho: both layouts, ids from the metadata, and names that must stay as they are."""

from __future__ import annotations

import csv
import logging
import re
from pathlib import Path

import pytest

from corpora.clotho import ClothoCorpus
from corpora.table import COLUMNS
from models.errors import CorpusError
from tests.corpora.layouts import touch, write_csv

CAPTIONS = ["file_name", *(f"caption_{number}" for number in range(1, 6))]
METADATA = ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]
NAMES = ["20061208.waves.02.wav", " Ambience Birds.wav", "Drip: 1-2.wav", "a: b.wav", "Zoë.jpg.wav", "in/side.wav"]


def _clip(name: str) -> list[str]:
    return [name, *(f"caption {number} of {name}" for number in range(1, 6))]


def _metadata(name: str, sound_id: str) -> list[str]:
    return [name, "water;rain", sound_id, f"https://freesound.org/s/{sound_id}", "[0, 9]", "Zoë", "CC0"]


def _corpus(root: Path, split: str = "train") -> ClothoCorpus:
    return ClothoCorpus.model_validate({"kind": "clotho", "root": str(root), "splits": [split]})


def _write(captions: Path, audio: Path, name: str = "development") -> None:
    write_csv(captions / f"clotho_captions_{name}.csv", CAPTIONS, *map(_clip, NAMES))
    ids = [_metadata(file, "Not found" if file == NAMES[1] else f"{100 + at}") for at, file in enumerate(NAMES)]
    write_csv(captions / f"clotho_metadata_{name}.csv", METADATA, *ids, encoding="iso-8859-1")
    touch(audio / name, NAMES)


@pytest.mark.parametrize(
    ("captions", "audio"),
    [
        (".", "."),
        ("clotho_csv_files", "clotho_audio_files"),
        ("CLOTHO_v2.1/clotho_csv_files", "CLOTHO_v2.1/clotho_audio_files"),
    ],
)
def test_reads_both_layouts_and_keeps_names(tmp_path: Path, captions: str, audio: str) -> None:
    _write(tmp_path / captions, tmp_path / audio)
    table = _corpus(tmp_path).read("train")
    assert tuple(table.clips.columns) == COLUMNS
    assert table.quarantine.empty
    assert table.clips["clip_id"].tolist() == [name.removesuffix(".wav") for name in NAMES]
    assert table.clips["path"].tolist() == [str(tmp_path / audio / "development" / name) for name in NAMES]
    assert all(Path(path).is_file() for path in table.clips["path"])
    assert table.clips["captions"].iloc[0] == _clip(NAMES[0])[1:]
    assert table.clips["freesound_id"].tolist() == ["100", "", "102", "103", "104", "105"]
    assert set(table.clips["youtube_id"]) == {""}


@pytest.mark.parametrize(
    ("split", "name"), [("train", "development"), ("validation", "validation"), ("test", "evaluation")]
)
def test_splits_have_clothos_names(tmp_path: Path, split: str, name: str) -> None:
    _write(tmp_path, tmp_path, name)
    assert len(_corpus(tmp_path, split).read(split).clips) == len(NAMES)


def test_clips_that_cannot_be_used(tmp_path: Path) -> None:
    _write(tmp_path, tmp_path)
    (tmp_path / "development" / NAMES[3]).unlink()
    with (tmp_path / "clotho_captions_development.csv").open("a", newline="") as file:
        csv.writer(file).writerows([_clip(NAMES[0]), ["../evaluation/a.wav", "one"], ["long.wav", "x" * 2001]])
    touch(tmp_path / "development", ["long.wav"])
    table = _corpus(tmp_path).read("train")
    assert len(table.clips) == len(NAMES) - 1
    parts = [
        "line 5: audio file is missing",
        "line 8: duplicate",
        "line 9: .*leads out",
        "line 10: .*2,001 char",
    ]
    assert len(table.quarantine) == len(parts)
    for reason, part in zip(table.quarantine["reason"], parts):
        assert re.search(f"clotho_captions_development.csv {part}", reason)


def test_blank_captions_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A published copy had hundreds of empty texts: Clotho's clips have five captions each."""
    _write(tmp_path, tmp_path)
    blank = [[*_clip(name)[:5], " "] if at else _clip(name) for at, name in enumerate(NAMES)]
    write_csv(tmp_path / "clotho_captions_development.csv", CAPTIONS, *blank)
    assert _corpus(tmp_path).read("train").clips["captions"].map(len).tolist() == [5, 4, 4, 4, 4, 4]
    assert "blank captions of 5 clips are left out; the first is in clotho_captions_development.csv line" in caplog.text


def test_without_metadata_it_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path, tmp_path)
    (tmp_path / "clotho_metadata_development.csv").unlink()
    with caplog.at_level(logging.WARNING):
        table = _corpus(tmp_path).read("train").clips
    assert set(table["freesound_id"]) == {""}
    assert "clotho_metadata_development.csv: no such file" in caplog.text
    assert "6 of 6 clips are unknown" in caplog.text


def test_with_metadata_of_other_clips_it_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path, tmp_path)
    write_csv(tmp_path / "clotho_metadata_development.csv", METADATA, _metadata(NAMES[0], "7"))
    with caplog.at_level(logging.WARNING):
        table = _corpus(tmp_path).read("train").clips
    assert table["freesound_id"].tolist() == ["7", "", "", "", "", ""]
    assert "5 of 6 clips are unknown" in caplog.text


def test_complete_metadata_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path, tmp_path)
    with caplog.at_level(logging.WARNING):
        _corpus(tmp_path).read("train")
    assert not caplog.text


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"clotho_captions_development\.csv: no such captions file.*set `root`"):
        _corpus(tmp_path).read("train")
    write_csv(tmp_path / "clotho_captions_development.csv", CAPTIONS, _clip("a.wav"))
    with pytest.raises(CorpusError, match=r"development: no such audio folder.*clotho_audio_development\.7z"):
        _corpus(tmp_path).read("train")


def test_two_layouts_at_once_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, tmp_path)
    _write(tmp_path / "clotho_csv_files", tmp_path)
    with pytest.raises(CorpusError, match="found 2 places of the captions file, expected one"):
        _corpus(tmp_path).read("train")


def test_metadata_without_ids(tmp_path: Path) -> None:
    _write(tmp_path, tmp_path)
    write_csv(tmp_path / "clotho_metadata_development.csv", ["file_name", "keywords"], ["a.wav", "rain"])
    with pytest.raises(CorpusError, match="found columns file_name, keywords; expected file_name, sound_id"):
        _corpus(tmp_path).read("train")


def test_no_clips(tmp_path: Path) -> None:
    write_csv(tmp_path / "clotho_captions_development.csv", CAPTIONS)
    (tmp_path / "development").mkdir()
    with pytest.raises(CorpusError, match="no rows"):
        _corpus(tmp_path).read("train")


@pytest.mark.parametrize(
    ("split", "name", "clips"),
    [("train", "development", 3839), ("validation", "validation", 1045), ("test", "evaluation", 1045)],
)
def test_the_real_captions(tmp_path: Path, shared_data: Path, split: str, name: str, clips: int) -> None:
    sheet = shared_data / "clotho" / f"clotho_captions_{name}.csv"
    (tmp_path / sheet.name).symlink_to(sheet)
    with sheet.open(newline="", encoding="utf-8") as file:
        names = [row["file_name"] for row in csv.DictReader(file)]
    touch(tmp_path / name, names)
    table = _corpus(tmp_path, split).read(split)
    assert (len(table.clips), len(table.quarantine)) == (clips, 0)
    assert table.clips["captions"].map(len).sum() == 5 * clips
    assert [Path(path).name for path in table.clips["path"]] == names
