"""WavCaps: a JSON file and an audio folder for each source; ids depend on the source, not on the path."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from corpora.wavcaps import WavCapsCorpus
from models.errors import CorpusError
from models.files import GIT_LFS
from tests.corpora.layouts import touch

FILES = {
    "AudioSet_SL": "as_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "FreeSound": "fsd_final.json",
    "SoundBible": "sb_final.json",
}


def _item(clip_id: str, caption: str = "Rain is falling.") -> dict[str, Any]:
    return {"id": clip_id, "caption": caption, "duration": 9.5, "audio": "wav_path", "description": "as uploaded"}


def _write(root: Path, source: str, items: list[Any], count: int = 1, folder: str = "json_files") -> None:
    path = root / folder / source / FILES[source]
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"num_captions_per_audio": count, "data": items}), encoding="utf-8")


def _corpus(root: Path, *sources: str, **settings: Any) -> WavCapsCorpus:
    chosen = {"sources": list(sources)} if sources else {}
    return WavCapsCorpus.model_validate({"kind": "wavcaps", "root": str(root), **chosen, **settings})


def test_all_four_sources(tmp_path: Path) -> None:
    _write(tmp_path, "AudioSet_SL", [_item("Yb0RFKhbpFJA.wav"), _item("YYo_3dT8Vm_3.wav")])
    _write(tmp_path, "BBC_Sound_Effects", [_item("NHU05104021")])
    _write(tmp_path, "FreeSound", [_item("2219"), _item("180913")])
    _write(tmp_path, "SoundBible", [_item("2219")])
    touch(tmp_path / "Audio" / "AudioSet_SL", ["Yb0RFKhbpFJA.flac", "YYo_3dT8Vm_3.flac"])
    touch(tmp_path / "Audio" / "BBC_Sound_Effects", ["NHU05104021.flac"])
    touch(tmp_path / "Audio" / "FreeSound", ["2219.flac", "180913.flac"])
    touch(tmp_path / "Audio" / "SoundBible", ["2219.flac"])
    table = _corpus(tmp_path).read("train")
    assert table.quarantine.empty
    rows = table.clips[["clip_id", "freesound_id", "youtube_id"]].to_numpy().tolist()
    assert rows == [
        ["AudioSet_SL/Yb0RFKhbpFJA", "", "b0RFKhbpFJA"],
        ["AudioSet_SL/YYo_3dT8Vm_3", "", "Yo_3dT8Vm_3"],
        ["BBC_Sound_Effects/NHU05104021", "", ""],
        ["FreeSound/2219", "2219", ""],
        ["FreeSound/180913", "180913", ""],
        # Not Freesound's 2219.
        ["SoundBible/2219", "", ""],
    ]
    assert table.clips["path"].iloc[3] == str(tmp_path / "Audio" / "FreeSound" / "2219.flac")
    assert table.clips["captions"].iloc[0] == ["Rain is falling."]


@pytest.mark.parametrize("folder", ["my AudioSet copies", "FreeSound/SoundBible"])
def test_names_of_folders_around_do_not_matter(tmp_path: Path, folder: str) -> None:
    _write(tmp_path / folder, "FreeSound", [_item("180913")])
    touch(tmp_path / folder / "waveforms" / "FreeSound_flac", ["180913.flac"])
    table = _corpus(tmp_path / folder, "FreeSound").read("train").clips
    assert table[["freesound_id", "youtube_id"]].to_numpy().tolist() == [["180913", ""]]


def test_audio_folder_may_be_given_and_have_other_formats(tmp_path: Path) -> None:
    _write(tmp_path, "FreeSound", [_item("1"), _item("2")], folder="WavCaps/json_files")
    touch(tmp_path / "mnt" / "data" / "FreeSound_flac", ["1.wav", "2.wav", "2.flac"])
    with pytest.raises(CorpusError, match=r"no such audio folder of FreeSound.*`audio_folder`"):
        _corpus(tmp_path, "FreeSound").read("train")
    table = _corpus(tmp_path, "FreeSound", audio_folder="mnt/data").read("train").clips
    assert [Path(path).name for path in table["path"]] == ["1.wav", "2.flac"]


def test_several_captions_a_clip(tmp_path: Path) -> None:
    captions = {f"caption_{number}": f"caption {number}" for number in range(1, 6)}
    _write(tmp_path, "AudioSet_SL", [{"id": "Yb0RFKhbpFJA.wav", "duration": 10, **captions, "caption_2": " "}], count=5)
    touch(tmp_path / "Audio" / "AudioSet_SL", ["Yb0RFKhbpFJA.flac"])
    table = _corpus(tmp_path, "AudioSet_SL").read("train").clips
    assert table["captions"].tolist() == [["caption 1", "caption 3", "caption 4", "caption 5"]]


def test_clips_that_cannot_be_used(tmp_path: Path) -> None:
    items = [
        _item("1"), _item("1", "again"), _item("2", "  "), {"id": "3"}, _item("4"), "5", {"caption": "no id"},
        _item("../6"), _item("/7"), _item("8", "x" * 10_000), _item("9", "broken \ud83d"), _item("\udcff"), _item("10"),
    ]  # fmt: skip
    _write(tmp_path, "FreeSound", items)
    touch(tmp_path / "Audio" / "FreeSound", [f"{clip_id}.flac" for clip_id in (1, 2, 3, 8, 9, 10)])
    table = _corpus(tmp_path, "FreeSound").read("train")
    assert table.clips["clip_id"].tolist() == ["FreeSound/1", "FreeSound/10"]
    parts = [
        "item 1: duplicate", "item 2: no caption", "item 3: no caption", "item 4: audio file is missing",
        "item 5: found str; expected", "item 6: file_name is blank", "item 7: .*leads out", "item 8: .*leads out",
        "item 9: a caption has 10,000", "item 10: a caption or an id is not UTF-8", "item 11: .*is not UTF-8",
    ]  # fmt: skip
    for reason, part in zip(table.quarantine["reason"], parts, strict=True):
        assert re.search(f"fsd_final.json {part}", reason)
    # The quarantine can be written as UTF-8.
    table.quarantine.to_parquet(tmp_path / "quarantine.parquet")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"fsd_final\.json: no such JSON file of FreeSound.*leave the source out"):
        _corpus(tmp_path, "FreeSound").read("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        (f"{GIT_LFS.decode()}v1", "pointer of Git LFS"),
        ("[]", "as WavCaps has it"),
        ('{"data": {}}', "as WavCaps has it"),
        ('{"num_captions_per_audio": "one", "data": [1]}', "as WavCaps has it"),
        ('{"num_captions_per_audio": 1, "data": []}', "no clips"),
        ("\ufeff\udcff", "cannot be read as JSON"),
    ],
)
def test_files_in_another_form(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "fsd_final.json").write_bytes(text.encode(errors="surrogateescape"))
    (tmp_path / "FreeSound").mkdir()
    with pytest.raises(CorpusError, match=f"fsd_final.json: .*{message}"):
        _corpus(tmp_path, "FreeSound").read("train")


def test_the_real_sound_bible(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "wavcaps" / "sb_final.json"
    (tmp_path / "sb_final.json").symlink_to(source)
    ids = [item["id"] for item in json.loads(source.read_bytes())["data"]]
    touch(tmp_path / "SoundBible", [f"{clip_id}.flac" for clip_id in ids])
    table = _corpus(tmp_path, "SoundBible").read("train")
    assert (len(table.clips), len(table.quarantine)) == (1232, 0)
    assert table.clips["clip_id"].tolist() == [f"SoundBible/{clip_id}" for clip_id in ids]
    assert set(table.clips["freesound_id"]) == {""}
