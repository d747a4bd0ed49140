"""Rendered clips and the files of the built-in corpus."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.soundscapes.grammar import describe
from corpora.soundscapes.render import render, write_captions, write_clip
from corpora.soundscapes.scene import Scene


def test_rendering_is_bounded_finite_and_as_long_as_said(splits: dict[str, list[Scene]]) -> None:
    for scene in splits["test"][:25]:
        audio = render(scene, 16000)
        assert audio.dtype == np.float32
        assert audio.shape == (round(scene.duration_s * 16000),)
        assert np.isfinite(audio).all()
        assert 0.005 < np.abs(audio).max() <= 1.0
    assert render(splits["test"][0], 44100).shape == (round(splits["test"][0].duration_s * 44100),)


def test_rendering_follows_the_seed(splits: dict[str, list[Scene]]) -> None:
    scene = splits["train"][0]
    np.testing.assert_array_equal(render(scene), render(scene))
    other = render(Scene(scene.clip_id, scene.split, scene.seed + 1, scene.duration_s, scene.events, scene.relation))
    assert abs(np.corrcoef(render(scene), other)[0, 1]) < 0.5


def test_written_files_can_be_read_back(tmp_path: Path, splits: dict[str, list[Scene]]) -> None:
    scene = splits["validation"][0]
    path = write_clip(scene, tmp_path, 16000)
    assert path == tmp_path / "validation" / "validation-00000.flac"
    audio, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000
    np.testing.assert_allclose(audio, render(scene, 16000), atol=1e-4)

    sheet = write_captions(tmp_path, "validation", splits["validation"])
    assert sheet == tmp_path / "validation.csv"
    rows = list(csv.DictReader(sheet.open(encoding="utf-8")))
    assert len(rows) == len(splits["validation"])
    assert list(rows[0]) == ["file_name", *(f"caption_{number}" for number in range(1, 6))]
    assert list(rows[0].values()) == ["validation-00000.flac", *describe(scene)]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, splits: dict[str, list[Scene]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(splits["test"][0], tmp_path, 16000)
    before = path.read_bytes()

    def fail(part: Path, content: bytes) -> int:
        with part.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        write_clip(splits["test"][0], tmp_path, 16000)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
