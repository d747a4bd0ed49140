"""Mixtures: pairs of clips that are read as one, with captions and ids of both."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from corpora.audio import clip_duration, files_of, load_clip
from corpora.exclusions import Exclusions, exclude
from corpora.mixing import Mixture
from corpora.mixtures import MixturesCorpus
from models.audio import AudioError
from models.errors import CorpusError
from tests.corpora.layouts import write_csv

RATE = 16_000


def _tone(path: Path, hertz: float, seconds: float, level: float) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return samples.astype(np.float32)


def _item(*files: object, captions: object = ("a dog barks while it rains",)) -> dict[str, Any]:
    """Return an item as in the published file, without the fields that are not read."""
    return {"selected_pair": [0, 1], "audio_files": list(files), "true_captions": [], "chatgpt_mixups": captions}


def _corpus(root: Path, *items: object, **settings: object) -> MixturesCorpus:
    pairs = root / "mixups.json"
    pairs.write_text(json.dumps({"dataset": items}, default=list))
    return MixturesCorpus.model_validate({"kind": "mixtures", "root": str(root), "pairs": str(pairs), **settings})


def _clotho(root: Path) -> None:
    write_csv(
        root / "clotho_captions_development.csv",
        ["file_name", "caption_1"],
        *([f"{name}.wav", name] for name in ("dog", "rain + wind", "bell", "gone")),
    )
    ids = [["dog.wav", "17"], ["rain + wind.wav", "23"], ["bell.wav", "Not found"], ["gone.wav", "4"]]
    write_csv(root / "clotho_metadata_development.csv", ["file_name", "sound_id"], *ids)
    for name, hertz in {"dog": 440, "rain + wind": 880, "bell": 1320}.items():
        _tone(root / "development" / f"{name}.wav", hertz, 0.5, 0.1)


def test_pairs_of_clotho(tmp_path: Path) -> None:
    _clotho(tmp_path)
    table = _corpus(
        tmp_path,
        _item("dog.wav", "rain + wind.wav", captions=["both", "  ", "the two"]),
        _item("bell.wav", "dog.wav"),
        _item("dog.wav", "gone.wav"),
        _item("dog.wav"),
        _item("dog.wav", "bell.wav", captions=[" "]),
        "dog.wav",
        _item("dog.wav", 3),
    ).read("train")
    assert table.clips["clip_id"].tolist() == ["mixture-0", "mixture-1"]
    assert table.clips["captions"].tolist() == [["both", "the two"], ["a dog barks while it rains"]]
    assert table.clips["freesound_id"].tolist() == ["17 23", "17"]
    mixture = Mixture.of_path(table.clips["path"].iloc[0])
    assert mixture
    assert mixture.path == table.clips["path"].iloc[0]
    assert (mixture.first, mixture.second) == tuple(
        str(tmp_path / "development" / f"{name}.wav") for name in ("dog", "rain + wind")
    )
    assert abs(mixture.ratio_db) <= 5
    assert 0 <= mixture.start < 1
    parts = ["item 2: 'gone.wav' is not among", "item 3: expected two", "item 4: no caption", "item 5: ", "item 6: "]
    for reason, part in zip(table.quarantine["reason"], parts, strict=True):
        assert f"mixups.json {part}" in reason


def test_rejected_captions_are_left_out(tmp_path: Path) -> None:
    _clotho(tmp_path)
    items = [_item("dog.wav", "bell.wav", captions=["a", "b", "c"]), _item("bell.wav", "dog.wav")]
    rejected = tmp_path / "rejected.json"
    rejected.write_text('[{"idx": [0, 1], "mixup": "b", "error": 0.99}, {"idx": [1, 0]}]')
    table = _corpus(tmp_path, *items, rejected=str(rejected)).read("train")
    assert table.clips["captions"].tolist() == [["a", "c"]]
    assert "mixups.json item 1: no caption" in table.quarantine["reason"].iloc[0]
    for content, message in {
        "{}": "found dict",
        '[{"idx": 3}]': "entry 0: idx: found 3",
        '[{"idx": [0, true]}]': "entry 0: idx",
        '[{"idx": [2, 0]}]': "found pair 2, but there are 2 pairs",
        '[{"idx": [0, 3]}]': "found caption 3, but pair 0 has 3",
    }.items():
        rejected.write_text(content)
        with pytest.raises(CorpusError, match=re.escape(message)):
            _corpus(tmp_path, *items, rejected=str(rejected)).read("train")


def test_a_seed_draws_the_same_and_another_seed_something_else(tmp_path: Path) -> None:
    _clotho(tmp_path)
    items = [_item("dog.wav", "bell.wav")] * 4
    paths = [_corpus(tmp_path, *items, seed=seed).read("train").clips["path"].tolist() for seed in (0, 0, 1)]
    assert paths[0] == paths[1]
    assert len({*paths[0], *paths[2]}) == 8


def test_pairs_of_a_folder(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["file_name", "caption_1"], ["a.wav", "x"], ["b.wav", "y"])
    for name in ("a", "b"):
        _tone(tmp_path / "train" / f"{name}.wav", 440, 0.2, 0.1)
    table = _corpus(tmp_path, _item("a.wav", "b.wav"), layout="folder").read("train").clips
    assert len(load_clip(table["path"].iloc[0], RATE)) == 0.2 * RATE


def test_the_dcase_rule_reaches_either_clip(tmp_path: Path) -> None:
    _clotho(tmp_path)
    table = _corpus(tmp_path, _item("dog.wav", "rain + wind.wav"), _item("dog.wav", "bell.wav")).read("train").clips
    kept = exclude(table, Exclusions({"23": "wavcaps.json", "2": "no other"}))
    assert kept.clips["clip_id"].tolist() == ["mixture-1"]
    assert kept.quarantine["reason"].tolist() == ["excluded from training: Freesound id 23 is in wavcaps.json"]
    both = exclude(table, Exclusions({"17": "a", "23": "b"})).clips
    assert both.empty


@pytest.mark.parametrize("ratio", [-5.0, 0.0, 4.5])
def test_the_sound(tmp_path: Path, ratio: float) -> None:
    long = _tone(tmp_path / "long.wav", 440, 1.0, 0.02)
    short = _tone(tmp_path / "short.wav", 1000, 0.25, 0.5)
    for first, second in (("long", "short"), ("short", "long")):
        mixture = Mixture(str(tmp_path / f"{first}.wav"), str(tmp_path / f"{second}.wav"), ratio, 0.5)
        mixed = load_clip(mixture.path, RATE)
        added = mixed - long
        at = round(0.5 * 0.75 * RATE)
        assert not added[:at].any()
        assert not added[at + len(short) :].any()
        inside = added[at : at + len(short)]
        assert np.corrcoef(inside, short)[0, 1] > 0.999
        assert 10 * np.log10(np.mean(long**2) / np.mean(inside**2)) == pytest.approx(ratio, abs=0.02)
        assert clip_duration(mixture.path) == 1
        assert len(load_clip(mixture.path, RATE, 0.5)) == RATE // 2
        assert {file.name for file in files_of(mixture.path)} == {"long.wav", "short.wav"}


def test_full_scale_is_not_left(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _tone(tmp_path / f"{name}.wav", 440, 0.5, 0.9)
    mixed = load_clip(Mixture(str(tmp_path / "a.wav"), str(tmp_path / "b.wav"), -5, 0).path, RATE)
    assert np.abs(mixed).max() == pytest.approx(1)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    _tone(tmp_path / "a.wav", 440, 0.5, 0.9)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match=r"b\.wav: cannot be decoded"):
        load_clip(Mixture(str(tmp_path / "a.wav"), str(tmp_path / "b.wav"), 0, 0).path, RATE)


@pytest.mark.parametrize("content", [None, "[", "[]", "{}", '{"dataset": []}', '{"dataset": {}}'])
def test_another_form_is_refused(tmp_path: Path, content: str | None) -> None:
    _clotho(tmp_path)
    corpus = _corpus(tmp_path, _item("dog.wav", "bell.wav"))
    Path(corpus.pairs).unlink() if content is None else Path(corpus.pairs).write_text(content)
    with pytest.raises(CorpusError, match=r'mixups\.json: .*expected \{"dataset"'):
        corpus.read("train")
