"""The folder adapter: from Clotho's columns to a table and a quarantine, or a plain error."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from corpora.folder import FolderCorpus, read_folder
from corpora.soundscapes.corpus import SoundscapesCorpus
from corpora.soundscapes.render import write_captions, write_clip
from corpora.soundscapes.sampling import sample_scenes
from corpora.table import COLUMNS, QUARANTINE_COLUMNS
from models.errors import CorpusError
from tests.corpora.layouts import touch, write_csv


def _write(root: Path, text: str, files: tuple[str, ...] = (), encoding: str = "utf-8") -> None:
    (root / "test.csv").write_text(text, encoding=encoding)
    (root / "test").mkdir(exist_ok=True)
    touch(root / "test", files)


def _corpus(root: Path, *splits: str) -> FolderCorpus:
    return FolderCorpus.model_validate({"kind": "folder", "root": str(root), "splits": list(splits)})


def test_reads_clips_and_captions(tmp_path: Path) -> None:
    text = 'license,caption_2,file_name,caption_1\nCC,"two, with comma",a b.wav,one\nCC,NA,c.d.flac,café\n'
    _write(tmp_path, text, ("a b.wav", "c.d.flac"))
    table = read_folder(tmp_path, "test")
    assert tuple(table.clips.columns) == COLUMNS
    assert tuple(table.quarantine.columns) == QUARANTINE_COLUMNS
    assert table.clips["clip_id"].tolist() == ["a b", "c.d"]
    assert table.clips["path"].tolist() == [str(tmp_path / "test" / "a b.wav"), str(tmp_path / "test" / "c.d.flac")]
    # "NA" is a caption, if a poor one, and not a missing value.
    assert table.clips["captions"].tolist() == [["one", "two, with comma"], ["café", "NA"]]
    assert table.quarantine.empty


def test_accepts_a_byte_order_mark_and_semicolons(tmp_path: Path) -> None:
    _write(tmp_path, "file_name;caption_1\na.wav;hello, you\n", ("a.wav",), "utf-8-sig")
    assert read_folder(tmp_path, "test").clips["captions"].tolist() == [["hello, you"]]


def test_reads_a_split_of_clotho_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    touch(tmp_path / "evaluation", ("a b.wav",))
    write_csv(tmp_path / "clotho_captions_evaluation.csv", ["file_name", "caption_1"], ["a b.wav", "one"])
    assert read_folder(tmp_path, "evaluation").clips["captions"].tolist() == [["one"]]


def test_orders_captions_by_number_and_drops_blank_ones(tmp_path: Path) -> None:
    _write(tmp_path, "file_name,caption_10,caption_2,caption_1\na.wav,ten, two ,one\nb.wav,ten, \n", ("a.wav", "b.wav"))
    assert read_folder(tmp_path, "test").clips["captions"].tolist() == [["one", "two", "ten"], ["ten"]]


def test_blank_captions_between_others_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Clips may have fewer captions than the file has columns; a gap is another thing."""
    _write(tmp_path, "file_name,caption_1,caption_2,caption_3\na.wav,one,,\nb.wav,,two,\n", ("a.wav", "b.wav"))
    assert read_folder(tmp_path, "test").clips["captions"].tolist() == [["one"], ["two"]]
    assert "blank captions of 1 clips are left out; the first is in test.csv line 3" in caplog.text


@pytest.mark.parametrize("column", ["freesound_id", "sound_id"])
def test_takes_ids_as_strings(tmp_path: Path, column: str) -> None:
    rows = ["a.wav,one,0123,r1nicOVtvkQ", "b.wav,one,Not found,", "c.wav,one,456.0,nan"]
    _write(tmp_path, f"file_name,caption_1,{column},youtube_id\n" + "\n".join(rows), ("a.wav", "b.wav", "c.wav"))
    table = read_folder(tmp_path, "test").clips
    assert table["freesound_id"].tolist() == ["0123", "", "456"]
    assert table["youtube_id"].tolist() == ["r1nicOVtvkQ", "", ""]


def test_quarantines_what_cannot_be_used(tmp_path: Path) -> None:
    rows = [
        "good.wav,yes", "mute.wav, ", "gone.wav,yes", "good.wav,again", "good.flac,yes", ",yes",
        f"long.wav,{'x' * 10_000}", "most.wav,a dog, barking", '"quote"d.wav,yes', "sub/none.wav,yes", "./good.wav,yes",
        "nul\0/a.wav,yes", "mute.wav,a\0b", f"{'n' * 300}/a.wav,yes", f"huge.wav,{'x' * 200_000}", "last.wav,yes",
    ]  # fmt: skip
    files = ("good.wav", "mute.wav", "good.flac", "long.wav", "most.wav", "last.wav")
    _write(tmp_path, "\n".join(["file_name,caption_1", *rows]), files)
    table = read_folder(tmp_path, "test")
    assert table.clips["clip_id"].tolist() == ["good", "last"]
    assert table.clips["captions"].tolist() == [["yes"], ["yes"]]
    assert table.quarantine["clip_id"].tolist()[:6] == ["mute", "gone", "good", "good", "", "long"]
    assert table.quarantine["path"].iloc[1] == str(tmp_path / "test" / "gone.wav")
    parts = [
        "3: no captions", "4: audio file is missing", "5: duplicate file_name", "6: same clip as good.wav",
        "7: .* blank", "8: .* 10,000 characters; expected at most 2,000", "9: more fields .* unquoted", "10: not CSV",
        "11: audio file is missing", "12: same clip as good.wav", "13: file_name .* holds a NUL character",
        "14: a caption or an id holds a NUL character", "15: audio file", "16: not CSV",
    ]  # fmt: skip
    for reason, part in zip(table.quarantine["reason"], parts, strict=True):
        assert re.search(f"^test.csv line {part}", reason)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.wav", "sub/../../a.wav", "C:\\a.wav", "C:/a.wav", "..\\a.wav", "\\\\host\\a.wav"]
)
def test_file_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    touch(tmp_path, ["a.wav"])
    _write(tmp_path, f"file_name,caption_1\n{name},hello\nb.wav,hello\n", ("b.wav", "sub/c.wav"))
    table = read_folder(tmp_path, "test")
    assert table.clips["clip_id"].tolist() == ["b"]
    assert re.search(r"line 2: file_name .* leads out", table.quarantine["reason"].item())


def test_reads_subfolders_and_linked_ones(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", ["b.wav"])
    _write(tmp_path, "file_name,caption_1\nsub/a.wav,one\nlink/b.wav,two\nsub,three\n", ("sub/a.wav",))
    (tmp_path / "test" / "link").symlink_to(tmp_path / "elsewhere")
    table = read_folder(tmp_path, "test")
    assert table.clips["clip_id"].tolist() == ["sub/a", "link/b"]
    # A folder is not an audio file.
    assert table.quarantine["clip_id"].tolist() == ["sub"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    text = "file_name,caption_1\ncafé.wav,one\nb.wav,café\nc.wav,three\n"
    _write(tmp_path, text, ("b.wav", "c.wav"), "latin-1")
    with open(os.fsencode(tmp_path / "test") + b"/caf\xe9.wav", "wb"):
        pass
    table = read_folder(tmp_path, "test")
    assert table.clips["clip_id"].tolist() == ["c"]
    assert "line 2: file_name" in table.quarantine["reason"].iloc[0]
    assert "line 3: a caption or an id is not UTF-8" in table.quarantine["reason"].iloc[1]
    # The quarantine can be written as UTF-8.
    table.quarantine.to_parquet(tmp_path / "quarantine.parquet")


def test_errors_can_be_printed_whatever_they_quote(tmp_path: Path) -> None:
    _write(tmp_path, "datei,café\na.wav,hello\n", encoding="latin-1")
    with pytest.raises(CorpusError, match="found columns datei, caf") as caught:
        read_folder(tmp_path, "test")
    str(caught.value).encode()


def test_missing_csv(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"test\.csv: no such file; expected test\.csv, or captions\.csv"):
        read_folder(tmp_path, "test")


def test_missing_audio_folder(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("file_name,caption_1\na.wav,hello\n")
    with pytest.raises(CorpusError, match="test: no such folder; expected the audio files"):
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


def test_repeated_column(tmp_path: Path) -> None:
    _write(tmp_path, "file_name,caption_1,caption_1\na.wav,one,two\n")
    with pytest.raises(CorpusError, match="found column 'caption_1' 2 times, expected once"):
        read_folder(tmp_path, "test")


def test_empty_split(tmp_path: Path) -> None:
    _write(tmp_path, "file_name,caption_1\n")
    with pytest.raises(CorpusError, match="no rows"):
        read_folder(tmp_path, "test")


@pytest.mark.parametrize("rest", ["b.wav,two\n" * 3, 'b.wav,"two"\n' * 3, "b.wav,two\n" * 50_000])
def test_a_quote_that_is_not_closed_would_lose_what_follows(tmp_path: Path, rest: str) -> None:
    _write(tmp_path, f'file_name,caption_1\na.wav,one\nc.wav,"oh\n{rest}', ("a.wav", "b.wav", "c.wav"))
    with pytest.raises(CorpusError, match=r"test\.csv, line 3: is a quote opened and not closed\?"):
        read_folder(tmp_path, "test")


def test_reads_what_soundscapes_writes(tmp_path: Path) -> None:
    scenes = sample_scenes({"test": 3}, seed=0)["test"]
    for scene in scenes:
        write_clip(scene, tmp_path, 16000)
    write_captions(tmp_path, "test", scenes)
    corpus = SoundscapesCorpus.model_validate({"kind": "soundscapes", "root": str(tmp_path), "splits": {"test": 3}})
    table = corpus.read("test")
    assert table.clips["clip_id"].tolist() == [scene.clip_id for scene in scenes]
    assert all(len(captions) == 5 for captions in table.clips["captions"])
    assert table.quarantine.empty


# --- one captions.csv ----------------------------------------------------------------------------------------------


def test_one_file_with_a_split_column(tmp_path: Path) -> None:
    rows = [("a.wav", "one", "train"), ("b.wav", "two", "Val"), ("c.wav", "three", "train"), ("d.wav", "four", "tets")]
    write_csv(tmp_path / "captions.csv", ["file_name", "caption_1", "split"], *rows)
    touch(tmp_path, ["a.wav", "b.wav", "c.wav", "d.wav"])
    corpus = _corpus(tmp_path, "train", "validation", "test")
    table = corpus.read("train")
    assert table.clips["path"].tolist() == [str(tmp_path / "a.wav"), str(tmp_path / "c.wav")]
    assert table.quarantine["reason"].tolist() == ["captions.csv line 5: no split is called 'tets'"]
    assert corpus.read("validation").clips["clip_id"].tolist() == ["b"]
    with pytest.raises(CorpusError, match="no row of the split test; the column `split` holds Val, tets, train"):
        corpus.read("test")


def test_one_file_without_a_split_column_serves_one_split(tmp_path: Path) -> None:
    write_csv(tmp_path / "captions.csv", ["file_name", "caption_1"], ["a.wav", "one"])
    touch(tmp_path, ["a.wav"])
    assert _corpus(tmp_path, "test").read("test").clips["clip_id"].tolist() == ["a"]
    with pytest.raises(CorpusError, match="no column `split`, so it can serve one split only, and 2 are asked for"):
        _corpus(tmp_path, "train", "test").read("test")
    with pytest.raises(CorpusError, match="no column `split`"):
        _corpus(tmp_path, "train", "test").read("train")


def test_a_file_of_the_split_is_preferred(tmp_path: Path) -> None:
    write_csv(tmp_path / "captions.csv", ["file_name", "caption_1"], ["a.wav", "common"])
    _write(tmp_path, "file_name,caption_1\na.wav,own\n", ("a.wav",))
    assert read_folder(tmp_path, "test").clips["captions"].tolist() == [["own"]]


def test_the_real_captions_as_a_folder(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "test.csv").symlink_to(shared_data / "audiocaps" / "test_five_captions.csv")
    (tmp_path / "test").mkdir()
    table = read_folder(tmp_path, "test")
    # Without audio every clip is set aside, to the last one.
    assert table.clips.empty
    assert len(table.quarantine) == 957
    assert table.quarantine["reason"].iloc[-1] == "test.csv line 958: audio file is missing"


def test_labels_are_those_of_the_column(tmp_path: Path) -> None:
    text = "file_name,caption_1,label\na.wav,one,rain\nb.c.wav,two, dog \nd.wav,three,\n"
    _write(tmp_path, text, ("a.wav", "b.c.wav", "d.wav"))
    corpus = _corpus(tmp_path, "test")
    assert corpus.labels("test") == {"a": ("rain",), "b.c": ("dog",)}
    assert corpus.read("test").clips["captions"].tolist() == [["one"], ["two"], ["three"]]
    _write(tmp_path, "file_name,caption_1\na.wav,one\n")
    assert corpus.labels("test") == {}
    with pytest.raises(CorpusError, match=r"train\.csv"):
        corpus.labels("train")


def test_labels_of_the_built_in_corpus_are_its_events(tmp_path: Path) -> None:
    settings = {"kind": "soundscapes", "root": str(tmp_path), "splits": {"train": 6, "test": 4}, "seed": 3}
    scenes = sample_scenes({"train": 6, "test": 4}, 3)["test"]
    found = SoundscapesCorpus.model_validate(settings).labels("test")
    assert found == {scene.clip_id: tuple(event.kind for event in scene.events) for scene in scenes}


HEADER = "file_name,caption_1,caption_2"


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (f"{HEADER},,\r\na.wav,a dog,barks,,\r\n,,,,\r\n", "utf-8"),  # as spreadsheets save it
        (f"{HEADER}\na.wav\ta dog\tbarks\n".replace(",", "\t"), "utf-8"),
        (f"{HEADER}\r\na.wav,a dog,barks\r\n".replace(",", "\t"), "utf-16"),
        (f"{HEADER}\na.wav;a dog;barks\n".replace(",", ";"), "utf-8-sig"),
        (f" {HEADER.replace(',', ' , ')} \na.wav,a dog,barks\n", "utf-8"),
        (f"{HEADER}\ra.wav,a dog,barks\r", "utf-8"),
        (f'"{HEADER.replace(",", chr(34) + "," + chr(34))}"\n"a.wav","a dog","barks"\n', "utf-8"),
    ],
    ids=["blank-columns", "tabs", "utf-16", "semicolons", "spaced-header", "cr", "all-quoted"],
)
def test_the_form_of_a_csv_file_makes_no_difference(content: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.wav").touch()
    (tmp_path / "test.csv").write_bytes(content.encode(encoding))
    table = read_folder(tmp_path, "test")
    assert table.clips[["clip_id", "captions"]].to_numpy().tolist() == [["a", ["a dog", "barks"]]]
    assert table.quarantine.empty


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_the_form_of_accents_makes_no_difference(written: Any, stored: Any, tmp_path: Path) -> None:
    def name(form: Any) -> str:
        return unicodedata.normalize(form, "fôret/été.wav")

    audio = tmp_path / "test" / name(stored)
    audio.parent.mkdir(parents=True)
    audio.touch()
    (tmp_path / "test.csv").write_text(
        f"file_name,caption_1\n{name(written)},birds\nnon-é.wav,wind\n", encoding="utf-8"
    )
    table = read_folder(tmp_path, "test")
    assert table.clips["path"].tolist() == [str(audio)]
    assert table.quarantine["reason"].tolist() == ["test.csv line 3: audio file is missing"]
