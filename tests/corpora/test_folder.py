"""The folder adapter: Clotho's layout in, a table and a quarantine out, plain errors otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpora.folder import QUARANTINE_COLUMNS, read_folder
from corpora.soundscapes import sample_scenes, write_captions, write_clip
from corpora.table import COLUMNS, CorpusError


def _write(root: Path, text: str, files: tuple[str, ...] = (), encoding: str = "utf-8") -> None:
    (root / "test.csv").write_text(text, encoding=encoding)
    for name in files:
        (root / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "test" / name).touch()


def test_reads_clips_and_captions(tmp_path: Path) -> None:
    text = 'license,caption_2,file_name,caption_1\nCC,"two, with comma",a b.wav,one\nCC,NA,c.d.flac,café\n'
    _write(tmp_path, text, ("a b.wav", "c.d.flac"))
    table, quarantine = read_folder(tmp_path, "test")
    assert tuple(table.columns) == COLUMNS
    assert tuple(quarantine.columns) == QUARANTINE_COLUMNS
    assert table["clip_id"].tolist() == ["a b", "c.d"]
    assert table["path"].tolist() == [str(tmp_path / "test" / "a b.wav"), str(tmp_path / "test" / "c.d.flac")]
    # "NA" is a caption, if a poor one, and not a missing value.
    assert table["captions"].tolist() == [["one", "two, with comma"], ["café", "NA"]]
    assert quarantine.empty


def test_accepts_a_byte_order_mark(tmp_path: Path) -> None:
    _write(tmp_path, "file_name,caption_1\na.wav,hello\n", ("a.wav",), "utf-8-sig")
    assert read_folder(tmp_path, "test")[0]["clip_id"].tolist() == ["a"]


def test_orders_captions_by_number_and_drops_blank_ones(tmp_path: Path) -> None:
    _write(tmp_path, "file_name,caption_10,caption_2,caption_1\na.wav,ten,  ,one\nb.wav,ten\n", ("a.wav", "b.wav"))
    assert read_folder(tmp_path, "test")[0]["captions"].tolist() == [["one", "ten"], ["ten"]]


def test_quarantines_what_cannot_be_used(tmp_path: Path) -> None:
    rows = ["good.wav,yes", "mute.wav, ", "gone.wav,yes", "good.wav,again", "good.flac,yes", ",yes"]
    _write(tmp_path, "\n".join(["file_name,caption_1", *rows]), ("good.wav", "mute.wav", "good.flac"))
    table, quarantine = read_folder(tmp_path, "test")
    assert table["clip_id"].tolist() == ["good"]
    assert table["captions"].tolist() == [["yes"]]
    assert quarantine["clip_id"].tolist() == ["mute", "gone", "good", "good", ""]
    assert quarantine["path"].iloc[1] == str(tmp_path / "test" / "gone.wav")
    parts = ["line 3: no caption", "line 4: audio file is missing", "duplicate file_name", "same clip_id as", "blank"]
    for reason, part in zip(quarantine["reason"], parts, strict=True):
        assert part in reason


def test_missing_csv(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"test\.csv: no such file"):
        read_folder(tmp_path, "test")


@pytest.mark.parametrize("header", ["name,text", "file_name,caption", "caption_1,audio"])
def test_missing_columns_are_named(tmp_path: Path, header: str) -> None:
    _write(tmp_path, f"{header}\na.wav,hello\n", ("a.wav",))
    found = header.replace(",", ", ")
    with pytest.raises(CorpusError, match=f"found columns {found}; expected file_name, caption_1"):
        read_folder(tmp_path, "test")


def test_empty_file_has_no_columns(tmp_path: Path) -> None:
    _write(tmp_path, "")
    with pytest.raises(CorpusError, match=r"found columns \(none\)"):
        read_folder(tmp_path, "test")


def test_empty_split(tmp_path: Path) -> None:
    _write(tmp_path, "file_name,caption_1\n")
    with pytest.raises(CorpusError, match="no clips"):
        read_folder(tmp_path, "test")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.wav", "sub/../../a.wav", "C:\\a.wav", "..\\a.wav", "\\\\host\\a.wav"]
)
def test_file_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    _write(tmp_path, f"file_name,caption_1\n{name},hello\n")
    with pytest.raises(CorpusError, match=r"line 2: file_name .* leads out"):
        read_folder(tmp_path, "test")


def test_unquoted_comma(tmp_path: Path) -> None:
    _write(tmp_path, "file_name,caption_1\na.wav,a dog, barking\n", ("a.wav",))
    with pytest.raises(CorpusError, match="line 2: more fields"):
        read_folder(tmp_path, "test")


def test_not_utf8(tmp_path: Path) -> None:
    _write(tmp_path, "file_name,caption_1\na.wav,café\n", ("a.wav",), "latin-1")
    with pytest.raises(CorpusError, match="UTF-8"):
        read_folder(tmp_path, "test")


def test_reads_what_soundscapes_writes(tmp_path: Path) -> None:
    scenes = sample_scenes({"test": 3}, seed=0)["test"]
    for scene in scenes:
        write_clip(scene, tmp_path, 16000)
    write_captions(tmp_path, "test", scenes)
    table, quarantine = read_folder(tmp_path, "test")
    assert table["clip_id"].tolist() == [scene.clip_id for scene in scenes]
    assert all(len(captions) == 5 for captions in table["captions"])
    assert quarantine.empty
