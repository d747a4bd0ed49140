"""Audio inside Parquet files: reading the table, and decoding single rows without unpacking."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from corpora import audio
from corpora.audio import clip_duration, load_clip
from corpora.parquet import ParquetCorpus
from models.audio import AudioError
from models.errors import CorpusError

RATE = 8000


def _sine(hertz: float, seconds: float = 0.1) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def _flac(hertz: float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, _sine(hertz), RATE, format="FLAC")
    return buffer.getvalue()


def _row(number: int, **columns: Any) -> dict[str, Any]:
    return {"audio": {"bytes": _flac(400 + 100 * number), "path": f"clip {number}.v2.flac"}, **columns}


def _write(path: Path, rows: Sequence[dict[str, Any]], row_group_size: int = 2, schema: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, row_group_size=row_group_size)


def _corpus(root: Path, *splits: str, **settings: Any) -> ParquetCorpus:
    chosen = list(splits) or ["train"]
    return ParquetCorpus.model_validate({"kind": "parquet", "root": str(root), "splits": chosen, **settings})


def test_reads_rows_of_all_files(tmp_path: Path) -> None:
    first, second = tmp_path / "train-00000-of-00002.parquet", tmp_path / "train-00001-of-00002.parquet"
    _write(first, [_row(number, caption=f"caption {number}", freesound_id=number) for number in range(3)])
    _write(second, [_row(3, caption="caption 3", freesound_id=None)])
    table = _corpus(tmp_path).read("train")
    assert table.quarantine.empty
    assert table.clips["clip_id"].tolist() == [f"clip {number}.v2" for number in range(4)]
    assert table.clips["path"].tolist() == [f"{first}#0", f"{first}#1", f"{first}#2", f"{second}#0"]
    assert table.clips["captions"].tolist() == [[f"caption {number}"] for number in range(4)]
    assert table.clips["freesound_id"].tolist() == ["0", "1", "2", ""]
    for number, path in enumerate(table.clips["path"]):
        samples = load_clip(path, RATE)
        np.testing.assert_allclose(samples, _sine(400 + 100 * number), atol=1e-3)


@pytest.mark.parametrize(
    ("split", "place"),
    [
        ("train", "train-0.parquet"),
        ("train", "data/train-0.parquet"),
        ("train", "train/anything.parquet"),
        ("validation", "validation-0.parquet"),
        ("validation", "data/valid-0.parquet"),
        ("validation", "dev-0.parquet"),
        ("validation", "val/0.parquet"),
        ("test", "test-0.parquet"),
        ("test", "evaluation/0.parquet"),
    ],
)
def test_finds_the_files_of_a_split(tmp_path: Path, split: str, place: str) -> None:
    _write(tmp_path / place, [_row(0, caption="a")])
    for other in {"train", "test", "validation"} - {split}:
        with pytest.raises(CorpusError, match=f"no such files; expected those of one of {other}"):
            _corpus(tmp_path, other).read(other)
    assert len(_corpus(tmp_path, split).read(split).clips) == 1


def test_two_places_at_once_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "val-0.parquet", [_row(0, caption="a")])
    _write(tmp_path / "data" / "validation-0.parquet", [_row(0, caption="a")])
    with pytest.raises(CorpusError, match=r"in more than one place \(data/validation-\*\.parquet, val-\*\.parquet\)"):
        _corpus(tmp_path, "validation").read("validation")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"caption": "a", "text": "b"}, ["a"]),
        ({"captions": ["a", " ", "b"], "text": "c"}, ["a", "b"]),
        ({"raw_text": ["a"]}, ["a"]),
        ({"caption_10": "c", "caption_1": "a", "caption_2": "b"}, ["a", "b", "c"]),
    ],
)
def test_finds_the_captions(tmp_path: Path, columns: dict[str, Any], expected: list[str]) -> None:
    _write(tmp_path / "train-0.parquet", [_row(0, **columns)])
    assert _corpus(tmp_path).read("train").clips["captions"].tolist() == [expected]


def test_columns_may_be_given(tmp_path: Path) -> None:
    row = _row(0, sound=_row(1)["audio"], caption="a", said=["b", "c"])
    _write(tmp_path / "train-0.parquet", [row])
    table = _corpus(tmp_path, audio_column="sound", captions_column="said").read("train").clips
    assert table["captions"].item() == ["b", "c"]
    assert table["clip_id"].item() == "clip 1.v2"
    np.testing.assert_allclose(load_clip(table["path"].item(), RATE), _sine(500), atol=1e-3)


def test_rows_without_a_name_are_called_by_their_number(tmp_path: Path) -> None:
    names = (None, "", "/home/me/a.wav", "b")
    rows = [{"audio": {"bytes": _flac(400), "path": name}, "caption": "a"} for name in names]
    _write(tmp_path / "train-0.parquet", rows)
    table = _corpus(tmp_path).read("train").clips
    assert table["clip_id"].tolist() == ["train-0#0", "train-0#1", "train-0#2", "b"]
    schema = pa.schema({"audio": pa.struct({"bytes": pa.binary()}), "caption": pa.string()})
    _write(tmp_path / "test-0.parquet", [{"audio": {"bytes": _flac(400)}, "caption": "a"}], schema=schema)
    assert _corpus(tmp_path, "test").read("test").clips["clip_id"].tolist() == ["test-0#0"]


def test_rows_of_the_same_audio_are_one_clip(tmp_path: Path) -> None:
    """As in AudioCaps with one row for each caption; the same name alone does not make the same clip."""
    one, two = [_row(0, youtube_id="abc", caption=f"caption {number}") for number in (1, 2)]
    other = _row(1, youtube_id="def", caption="of another clip")
    namesake = _row(0, youtube_id="xyz", caption="of a namesake")
    _write(tmp_path / "test-0.parquet", [one, other])
    _write(tmp_path / "test-1.parquet", [two, namesake])
    table = _corpus(tmp_path, "test").read("test")
    assert table.clips["captions"].tolist() == [["caption 1", "caption 2"], ["of another clip"]]
    assert table.clips["path"].tolist() == [f"{tmp_path / 'test-0.parquet'}#{number}" for number in (0, 1)]
    assert table.quarantine["reason"].tolist() == ["test-1.parquet row 1: duplicate file_name"]


def test_clips_that_cannot_be_used(tmp_path: Path) -> None:
    shorter = {"audio": {"bytes": _flac(400)[:-1], "path": "clip 0.v2.flac"}, "caption": "of other audio"}
    rows = [_row(0, caption="a"), shorter, _row(1, caption=None), _row(2, caption="x" * 2001)]
    _write(tmp_path / "train-0.parquet", rows)
    table = _corpus(tmp_path).read("train")
    assert len(table.clips) == 1
    parts = ["row 1: duplicate", "row 2: no caption", "row 3: a caption has 2,001"]
    for reason, part in zip(table.quarantine["reason"], parts, strict=True):
        assert f"train-0.parquet {part}" in reason


def test_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    _write(tmp_path / "train-0.parquet", [_row(0, caption="a")])
    os.rename(tmp_path / "train-0.parquet", os.fsencode(tmp_path) + b"/train-\xe9.parquet")
    with pytest.raises(CorpusError, match="not UTF-8") as caught:
        _corpus(tmp_path).read("train")
    str(caught.value).encode()


def test_files_in_another_form(tmp_path: Path) -> None:
    file = tmp_path / "train-0.parquet"
    file.write_text("no Parquet")
    with pytest.raises(CorpusError, match=r"train-0\.parquet: cannot be read as Parquet"):
        _corpus(tmp_path).read("train")
    _write(file, [_row(0, words="a")])
    with pytest.raises(CorpusError, match=r"found columns audio: struct.*words: string; expected captions"):
        _corpus(tmp_path).read("train")
    with pytest.raises(CorpusError, match="expected captions, text or lists of text, in audio"):
        _corpus(tmp_path, captions_column="audio").read("train")
    _write(file, [{"audio": b"bytes", "caption": "a"}])
    with pytest.raises(CorpusError, match="expected audio: struct<bytes, path>; set `audio_column`"):
        _corpus(tmp_path).read("train")
    _write(file, [], schema=pa.schema({"audio": pa.struct({"bytes": pa.binary()}), "caption": pa.string()}))
    with pytest.raises(CorpusError, match="no rows"):
        _corpus(tmp_path).read("train")


def test_a_pass_reads_each_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "train-0.parquet", [_row(number, caption="a") for number in range(7)], row_group_size=3)
    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
        read.append(group)
        return original(self, group, **options)

    monkeypatch.setattr(audio.pq.ParquetFile, "read_row_group", counted)
    for path in _corpus(tmp_path).read("train").clips["path"]:
        load_clip(path, RATE)
        load_clip(path, 2 * RATE)
        assert clip_duration(path) == pytest.approx(0.1)
    assert read == [0, 1, 2]


def test_a_file_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "train-0.parquet"
    _write(file, [_row(0, caption="a")])
    load_clip(f"{file}#0", RATE)
    _write(file, [_row(5, caption="a"), _row(6, caption="b")])
    os.utime(file, ns=(1, 1))
    np.testing.assert_allclose(load_clip(f"{file}#0", RATE), _sine(900), atol=1e-3)
    np.testing.assert_allclose(load_clip(f"{file}#1", RATE), _sine(1000), atol=1e-3)


def test_no_more_is_decoded_than_asked(tmp_path: Path) -> None:
    _write(tmp_path / "train-0.parquet", [_row(0, caption="a")])
    assert len(load_clip(tmp_path / "train-0.parquet#0", RATE, max_duration_s=0.05)) == RATE // 20


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("train-0.parquet#0", "holds no audio"),
        ("train-0.parquet#1", "holds no audio"),
        ("train-0.parquet#2", "cannot be decoded"),
        ("train-0.parquet#3", "no such row; the file has 3"),
        ("train-0.parquet#0:sound", "with a column sound.bytes"),
        ("gone.parquet#0", "no such file"),
        ("text.parquet#0", "cannot be read as Parquet"),
    ],
)
def test_says_which_row_and_why(tmp_path: Path, row: str, reason: str) -> None:
    sounds = [None, {"bytes": None, "path": "a.wav"}, {"bytes": b"not audio", "path": "b.wav"}]
    _write(tmp_path / "train-0.parquet", [{"audio": sound, "caption": "a"} for sound in sounds])
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(AudioError, match=reason) as caught:
        load_clip(tmp_path / row, RATE)
    assert str(tmp_path / row.split(":")[0]) in str(caught.value)
