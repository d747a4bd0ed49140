"""The DCASE rule: clips that are evaluated on, or listed, are never trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from corpora.clotho import ClothoCorpus
from corpora.exclusions import Exclusions, exclude, find_evaluation_ids, read_exclusions
from corpora.table import QUARANTINE_COLUMNS, clip_frame
from corpora.wavcaps import WavCapsCorpus
from models.errors import CorpusError
from tests.corpora.layouts import touch, write_csv


def _table(*ids: tuple[str, str]) -> pd.DataFrame:
    """Return clips c0, c1, ... of (freesound_id, youtube_id)."""
    return clip_frame([(f"c{at}", f"/a/c{at}.wav", ["x"], *pair) for at, pair in enumerate(ids)])


def _wavcaps(root: Path, freesound: list[str], audioset: list[str]) -> pd.DataFrame:
    """Write WavCaps with clips of these ids as it is published, and read it."""
    for source, name, ids in (("FreeSound", "fsd_final.json", freesound), ("AudioSet_SL", "as_final.json", audioset)):
        items = [{"id": clip_id, "caption": "Rain.", "duration": 1.0, "audio": "wav_path"} for clip_id in ids]
        (root / name).write_text(json.dumps({"num_captions_per_audio": 1, "data": items}))
        touch(root / "Audio" / source, [f"{clip_id.removesuffix('.wav')}.flac" for clip_id in ids])
    settings = {"kind": "wavcaps", "root": str(root), "sources": ["FreeSound", "AudioSet_SL"]}
    return WavCapsCorpus.model_validate(settings).read("train").clips


def _clotho(root: Path, split: str, sound_ids: list[str]) -> pd.DataFrame:
    name = {"train": "development", "validation": "validation", "test": "evaluation"}[split]
    names = [f"{split} {sound_id} {at}.wav" for at, sound_id in enumerate(sound_ids)]
    write_csv(root / f"clotho_captions_{name}.csv", ["file_name", "caption_1"], *[[file, "Rain."] for file in names])
    rows = [[file, "rain", sound_id] for file, sound_id in zip(names, sound_ids)]
    write_csv(root / f"clotho_metadata_{name}.csv", ["file_name", "keywords", "sound_id"], *rows, encoding="iso-8859-1")
    touch(root / name, names)
    return ClothoCorpus.model_validate({"kind": "clotho", "root": str(root), "splits": [split]}).read(split).clips


def test_wavcaps_without_a_blacklist_of_wavcaps(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('{"AudioSet": ["Yb0RFKhbpFJA.wav"], "FreeSound": ["156", "Not found", "201"]}')
    wavcaps = _wavcaps(tmp_path, ["1156", "156", "0156", "15"], ["Yb0RFKhbpFJA.wav", "YYo_3dT8Vm_3.wav"])
    kept = exclude(wavcaps, read_exclusions(tmp_path / "list.json"))
    assert kept.clips["clip_id"].tolist() == [
        "FreeSound/1156",
        "FreeSound/0156",
        "FreeSound/15",
        "AudioSet_SL/YYo_3dT8Vm_3",
    ]
    assert kept.clips.index.tolist() == [0, 1, 2, 3]
    assert tuple(kept.quarantine.columns) == QUARANTINE_COLUMNS
    assert kept.quarantine["clip_id"].tolist() == ["FreeSound/156", "AudioSet_SL/Yb0RFKhbpFJA"]
    assert kept.quarantine["reason"].tolist() == [
        "excluded from training: Freesound id 156 is in list.json",
        "excluded from training: YouTube id b0RFKhbpFJA is in list.json",
    ]


def test_the_real_blacklists(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "wavcaps" / "blacklist_exclude_test_ac.json"
    listed = json.loads(path.read_text())
    exclusions = read_exclusions(path)
    freesound = [clip_id for clip_id in dict.fromkeys(listed["FreeSound"]) if clip_id != "Not found"]
    assert len(listed["FreeSound"]) == 2090
    assert (len(exclusions.freesound), len(exclusions.youtube)) == (len(freesound), 1451)

    allowed = [f"9{clip_id}9" for clip_id in freesound[:500]]
    assert not set(allowed) & set(freesound)
    videos = [*listed["AudioSet"][:300], "Y___________.wav"]
    table = _wavcaps(tmp_path, [*freesound[:500], *allowed], videos)
    kept = exclude(table, exclusions)
    assert kept.clips["clip_id"].tolist() == [
        *(f"FreeSound/{clip_id}" for clip_id in allowed),
        "AudioSet_SL/Y___________",
    ]
    assert len(kept.quarantine) == 500 + 300
    assert kept.quarantine["reason"].str.contains("blacklist_exclude_test_ac.json").all()


@pytest.mark.parametrize(
    ("name", "freesound", "youtube"),
    [
        ("blacklist_exclude_all_ac.json", 5929, 50725),
        ("blacklist_exclude_test_ac.json", 2090, 1451),
        ("blacklist_exclude_ub8k_esc50_vggsound.json", 2219, 15510),
    ],
)
def test_no_id_of_the_real_blacklists_is_lost(shared_data: Path, name: str, freesound: int, youtube: int) -> None:
    listed = json.loads((shared_data / "wavcaps" / name).read_text())
    assert (len(listed["FreeSound"]), len(listed["AudioSet"])) == (freesound, youtube)
    exclusions = read_exclusions(shared_data / "wavcaps" / name)
    assert set(exclusions.freesound) == set(listed["FreeSound"]) - {"Not found"}
    assert {f"Y{video}.wav" for video in exclusions.youtube} == set(listed["AudioSet"])


def test_audiocaps_evaluation_clips_are_in_the_real_blacklist(shared_data: Path) -> None:
    blacklist = read_exclusions(shared_data / "wavcaps" / "blacklist_exclude_test_ac.json")
    own = [read_exclusions(shared_data / "audiocaps" / f"{split}_five_captions.csv") for split in ("val", "test")]
    assert [len(exclusions.youtube) for exclusions in own] == [494, 957]
    assert set(Exclusions.union(own).youtube) == set(blacklist.youtube)


@pytest.mark.parametrize(
    ("name", "text", "freesound", "youtube"),
    [
        ("dcase2024_task6_excluded_freesound_ids.csv", "sound_id\n156\nNot found\n0201\n", ["156", "0201"], []),
        ("dcase2024_task6_excluded_freesound_ids.csv", "excluded\n156\n201\n", ["156", "201"], []),
        ("blacklist_clotho.full.v2.csv", "index,id\n0,117790\n1,204046\n", ["117790", "204046"], []),
        ("blacklist_audiocaps.full.csv", "index,id\n0,Yr1nicOVtvkQ.wav\n", [], ["r1nicOVtvkQ"]),
        ("videos.csv", "id\nYYo_3dT8Vm_3.wav\nYo_3dT8Vm_3\n", [], ["Yo_3dT8Vm_3"]),
        ("clotho_metadata_evaluation.csv", "file_name,keywords,sound_id,license\na: b.wav,Zo\xeb;x,7,CC\n", ["7"], []),
        ("clotho_metadata_test.csv", "file_name;sound_id;sound_link\na.wav;7;https://\nb, c.wav;8;\n", ["7", "8"], []),
        ("test.csv", "audiocap_id,youtube_id,start_time,caption\n1,-0xzrMun0Rs,30,a\n", [], ["-0xzrMun0Rs"]),
        ("numbers.csv", "id\n12345678901\n", ["12345678901"], []),
        ("pandas.csv", "freesound_id\n156.0\nnan\n", ["156"], []),
    ],
)
def test_every_published_form(tmp_path: Path, name: str, text: str, freesound: list[str], youtube: list[str]) -> None:
    (tmp_path / name).write_text(text, encoding="iso-8859-1")
    expected = Exclusions(dict.fromkeys(freesound, name), dict.fromkeys(youtube, name))
    assert read_exclusions(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[1, 2]", "expected"),
        ("a.json", "{}", "expected"),
        ("a.json", '{"FreeSound": "156"}', "expected"),
        ("a.json", '{"Freesound": ["156"]}', "expected"),
        ("a.json", '{"FreeSound": ["Y156.wav"]}', "'Y156.wav' is not a Freesound id"),
        ("a.json", '{"AudioSet": ["156"]}', "'156' is not a YouTube id"),
        ("a.json", '{"AudioSet": [], "FreeSound": ["Not found"]}', "no ids"),
        ("a.csv", "", "is empty"),
        ("a.csv", "sound_id\n", "no rows"),
        ("a.csv", "sound_id\n156\nx\n", "line 3: 'x' is not a Freesound id"),
        ("a.csv", "youtube_id\n156\n", "line 2: '156' is not a YouTube id"),
        ("a.csv", "file_name,caption_1\nSanta Motor.wav,x\n", "line 2: 'Santa Motor.wav' is not a Freesound id"),
        ("a.csv", "index,id\n0,1,2\n", "line 2: more fields"),
    ],
)
def test_malformed_lists_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match=message) as caught:
        read_exclusions(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("name", ["gone.json", "gone.csv"])
def test_missing_lists_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorpusError, match=f"{name}: no such file; expected an exclusion list"):
        read_exclusions(tmp_path / name)


def test_clips_of_evaluation_splits_are_not_trained_on(tmp_path: Path) -> None:
    train = _clotho(tmp_path, "train", ["1", "2", "Not found", "4"])
    validation = _clotho(tmp_path, "validation", ["11", "2", "Not found"])
    test = _clotho(tmp_path, "test", ["21", "2", "22"])
    wavcaps = _wavcaps(tmp_path, ["11", "22", "1", "33"], ["Yb0RFKhbpFJA.wav", "YYo_3dT8Vm_3.wav"])
    audiocaps = _table(("", "b0RFKhbpFJA"), ("", ""))
    tables = {
        ("clotho", "train"): train, ("clotho", "validation"): validation, ("clotho", "test"): test,
        ("wavcaps", "train"): wavcaps, ("audiocaps", "test"): audiocaps,
    }  # fmt: skip
    found = find_evaluation_ids(tables)
    assert found.freesound == {
        "11": "clotho/validation",
        "2": "clotho/validation",
        "21": "clotho/test",
        "22": "clotho/test",
    }
    assert found.youtube == {"b0RFKhbpFJA": "audiocaps/test"}
    assert exclude(train, found).clips["freesound_id"].tolist() == ["1", "", "4"]
    kept = exclude(wavcaps, found)
    assert kept.clips["clip_id"].tolist() == ["FreeSound/1", "FreeSound/33", "AudioSet_SL/YYo_3dT8Vm_3"]
    assert kept.quarantine["reason"].tolist() == [
        "excluded from training: Freesound id 11 is in clotho/validation",
        "excluded from training: Freesound id 22 is in clotho/test",
        "excluded from training: YouTube id b0RFKhbpFJA is in audiocaps/test",
    ]


def test_unknown_ids_exclude_nothing() -> None:
    table = _table(("", ""), ("", ""))
    for exclusions in (Exclusions(), Exclusions({"1": "a"}, {"b": "c"}), find_evaluation_ids({("c", "test"): table})):
        kept = exclude(table, exclusions)
        assert len(kept.clips) == 2
        assert tuple(kept.quarantine.columns) == QUARANTINE_COLUMNS
        assert kept.quarantine.empty


def test_a_table_without_clips() -> None:
    kept = exclude(clip_frame([]), Exclusions({"1": "a"}))
    assert kept.clips.empty
    assert kept.quarantine.empty


def test_union_keeps_the_first_source() -> None:
    parts = [Exclusions({"1": "a"}), Exclusions({"1": "b", "2": "b"}, {"v": "b"}), Exclusions({"3": "c"})]
    assert Exclusions.union(parts) == Exclusions({"1": "a", "2": "b", "3": "c"}, {"v": "b"})
    assert Exclusions.union([]) == Exclusions()
