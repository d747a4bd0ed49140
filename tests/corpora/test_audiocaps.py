"""AudioCaps: the official files and the copies grouped by clip, with every name that the audio may have."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from corpora.audiocaps import AudioCapsCorpus
from models.errors import CorpusError
from tests.corpora.layouts import touch, write_csv

OFFICIAL = ["audiocap_id", "youtube_id", "start_time", "caption"]
LINES = [
    ("1", "r1nicOVtvkQ", "130", "A woman talks nearby as water pours"),
    ("2", "-0xzrMun0Rs", "30", "Birds chirp"),
    ("3", "r1nicOVtvkQ", "130", "Water is poured"),
    ("4", "Yo_3dT8Vm_3", "0", "A car passes"),
    ("5", "gone_video0", "10", "A train"),
]
CLIP_IDS = ["r1nicOVtvkQ_130", "-0xzrMun0Rs_30", "Yo_3dT8Vm_3_0"]


def _corpus(root: Path, split: str = "train", **settings: Any) -> AudioCapsCorpus:
    return AudioCapsCorpus.model_validate({"kind": "audiocaps", "root": str(root), "splits": [split], **settings})


@pytest.mark.parametrize(
    "names",
    [
        ["r1nicOVtvkQ_130.flac", "-0xzrMun0Rs_30.flac", "Yo_3dT8Vm_3_0.flac"],
        ["r1nicOVtvkQ_130.wav", "-0xzrMun0Rs_30.wav", "Yo_3dT8Vm_3_0.wav"],
        ["r1nicOVtvkQ_130.000.wav", "-0xzrMun0Rs_30.000.wav", "Yo_3dT8Vm_3_0.000.wav"],
        ["Yr1nicOVtvkQ.wav", "Y-0xzrMun0Rs.wav", "YYo_3dT8Vm_3.wav"],
        ["r1nicOVtvkQ.wav", "-0xzrMun0Rs.wav", "Yo_3dT8Vm_3.wav"],
    ],
)
def test_official_captions_with_audio_of_any_name(tmp_path: Path, names: list[str]) -> None:
    write_csv(tmp_path / "train.csv", OFFICIAL, *LINES)
    touch(tmp_path / "train", [*names, "unrelated.txt"])
    table = _corpus(tmp_path).read("train")
    assert table.clips["clip_id"].tolist() == CLIP_IDS
    assert table.clips["path"].tolist() == [str(tmp_path / "train" / name) for name in names]
    # The lines of a clip are collected from anywhere in the file.
    assert table.clips["captions"].tolist()[0] == ["A woman talks nearby as water pours", "Water is poured"]
    assert table.clips["youtube_id"].tolist() == ["r1nicOVtvkQ", "-0xzrMun0Rs", "Yo_3dT8Vm_3"]
    assert set(table.clips["freesound_id"]) == {""}
    assert table.quarantine["clip_id"].tolist() == ["gone_video0_10"]
    assert table.quarantine["reason"].tolist() == ["train.csv line 6: audio file is missing"]


def test_another_start_of_the_video_is_another_clip(tmp_path: Path) -> None:
    write_csv(tmp_path / "test.csv", OFFICIAL, LINES[0], ("9", "r1nicOVtvkQ", "20", "Another"))
    touch(tmp_path / "test", ["r1nicOVtvkQ_130.flac"])
    table = _corpus(tmp_path, "test").read("test")
    assert table.clips["clip_id"].tolist() == ["r1nicOVtvkQ_130"]
    assert table.quarantine["clip_id"].tolist() == ["r1nicOVtvkQ_20"]


def test_one_file_is_not_two_clips(tmp_path: Path) -> None:
    write_csv(tmp_path / "test.csv", OFFICIAL, LINES[0], ("9", "r1nicOVtvkQ", "20", "Another"))
    touch(tmp_path / "test", ["Yr1nicOVtvkQ.wav"])
    table = _corpus(tmp_path, "test").read("test")
    assert len(table.clips) == 1
    assert "duplicate file_name" in table.quarantine["reason"].item()


@pytest.mark.parametrize(("captions", "audio"), [("", "audio_32000Hz"), ("csv_files_v2", "audio_32000Hz")])
def test_as_aac_datasets_leaves_it(tmp_path: Path, captions: str, audio: str) -> None:
    write_csv(tmp_path / "AUDIOCAPS" / captions / "val.csv", OFFICIAL, *LINES)
    touch(tmp_path / "AUDIOCAPS" / audio / "val", [f"{clip_id}.flac" for clip_id in CLIP_IDS])
    assert len(_corpus(tmp_path, "validation").read("validation").clips) == 3


def test_folders_may_be_given(tmp_path: Path) -> None:
    for version in ("csv_files_v1", "csv_files_v2"):
        write_csv(tmp_path / version / "train.csv", OFFICIAL, *LINES)
    touch(tmp_path / "everything", [f"{clip_id}.flac" for clip_id in CLIP_IDS])
    with pytest.raises(CorpusError, match=r"found 2 places of the captions file, expected one.*`captions_folder`"):
        _corpus(tmp_path).read("train")
    with pytest.raises(CorpusError, match=r"no such audio folder.*`audio_folder`"):
        _corpus(tmp_path, captions_folder="csv_files_v2").read("train")
    corpus = _corpus(tmp_path, captions_folder="csv_files_v2", audio_folder="everything")
    assert len(corpus.read("train").clips) == 3


@pytest.mark.parametrize("name", ["Yr1nicOVtvkQ.wav", "r1nicOVtvkQ.wav", "r1nicOVtvkQ_130.flac"])
@pytest.mark.parametrize("columns", [["file_name", "caption"], ["file_name", "caption_1", "caption_2"]])
def test_copies_grouped_by_clip(tmp_path: Path, columns: list[str], name: str) -> None:
    captions = ["one", "two"][: len(columns) - 1]
    write_csv(tmp_path / "train.csv", columns, ["Yr1nicOVtvkQ.wav", *captions], ["Ygone_video0.wav", *captions])
    touch(tmp_path / "train", [name])
    table = _corpus(tmp_path).read("train")
    assert table.clips[["clip_id", "youtube_id"]].to_numpy().tolist() == [["Yr1nicOVtvkQ", "r1nicOVtvkQ"]]
    assert table.clips["path"].item() == str(tmp_path / "train" / name)
    assert table.clips["captions"].item() == captions
    assert table.quarantine["reason"].tolist() == ["train.csv line 3: audio file is missing"]


def test_a_bad_line_stops_no_other(tmp_path: Path) -> None:
    lines = [",".join(OFFICIAL), "1,r1nicOVtvkQ,130,a dog, barking", "3,r1nicOVtvkQ,130,Water", "4,,5,x"]
    lines.append("5,r1nicOVtvkQ,130,a dog, barking")
    (tmp_path / "train.csv").write_text("\n".join(lines))
    touch(tmp_path / "train", ["r1nicOVtvkQ_130.flac"])
    table = _corpus(tmp_path).read("train")
    assert table.clips["captions"].tolist() == [["Water"]]
    assert "line 2: more fields" in table.quarantine["reason"].iloc[0]
    assert "line 4: file_name is blank" in table.quarantine["reason"].iloc[1]
    assert "line 5: more fields" in table.quarantine["reason"].iloc[2]


def test_other_columns_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["ytid", "text"], ["a", "b"])
    (tmp_path / "train").mkdir()
    with pytest.raises(CorpusError, match="found columns ytid, text; expected file_name, caption_1"):
        _corpus(tmp_path).read("train")


def test_missing_captions(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"val\.csv: no such captions file.*train\.csv, val\.csv and test\.csv"):
        _corpus(tmp_path).read("validation")


@pytest.mark.parametrize(("split", "name", "clips"), [("validation", "val", 494), ("test", "test", 957)])
def test_the_real_captions(tmp_path: Path, shared_data: Path, split: str, name: str, clips: int) -> None:
    sheet = shared_data / "audiocaps" / f"{name}_five_captions.csv"
    (tmp_path / f"{name}.csv").symlink_to(sheet)
    with sheet.open(newline="", encoding="utf-8") as file:
        names = [row["file_name"] for row in csv.DictReader(file)]
    # As if ten videos had been deleted.
    touch(tmp_path / name, names[10:])
    table = _corpus(tmp_path, split).read(split)
    assert (len(table.clips), len(table.quarantine)) == (clips - 10, 10)
    assert table.clips["captions"].map(len).sum() == 5 * len(table.clips)
    assert table.clips["youtube_id"].tolist() == [name[1:-4] for name in names[10:]]
