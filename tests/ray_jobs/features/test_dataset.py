"""The clips of a split over its shards; codecs do not mix; features of an earlier version are refused."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.features.dataset import StoredMatrices, read_features
from ray_jobs.features.files import FeaturesError

from .clips import clips, write


def test_clips_of_several_splits_and_shards(tmp_path: Path) -> None:
    written = [clips(3), clips(2, seed=1), clips(4, seed=2)]
    for place, shard in zip(("a/00000", "a/00001", "b/00000"), written, strict=True):
        write(tmp_path / f"{place}.arrow", shard)
    write(tmp_path / "b" / "00001.arrow", [])
    found, expected = read_features([tmp_path / "a", tmp_path / "b"]), [*chain(*written)]
    assert found.clip_ids == [clip["clip_id"] for clip in expected]
    assert found.captions == [clip["captions"] for clip in expected]
    assert found.durations_s == [clip["duration_s"] for clip in expected]
    assert found.origins == [0] * 5 + [1] * 4
    assert found.shards == [0] * 3 + [1] * 2 + [2] * 4
    for part in (found, found.head(7)):
        assert len(part) == len(part.codes) == len(part.log_mels)
        for row in np.random.default_rng(0).permutation(len(part)):
            np.testing.assert_array_equal(part.codes[row], expected[row]["codes"])
            np.testing.assert_array_equal(part.log_mels[row], expected[row]["log_mel"])
    assert found.file_names[:4] == ["0.wav", "1.wav", "2.wav", "0.wav"]
    found.paths[1] = "/corpus/test.parquet#1"
    assert found.file_names[1] == found.clip_ids[1]


def test_an_array_is_never_copied(tmp_path: Path) -> None:
    write(tmp_path / "00000.arrow", clips(3))
    codes = read_features([tmp_path]).codes
    assert isinstance(codes, StoredMatrices)
    assert np.shares_memory(codes[1], codes[1])
    assert np.shares_memory(codes[1], codes[1:][0])


def test_codes_of_different_codecs_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(["dac-44khz", "dac-16khz"]):
        write(tmp_path / f"{number:05d}.arrow", clips(2), codec=name)
    with pytest.raises(FeaturesError, match=r"dac-16khz.*dac-44khz"):
        read_features([tmp_path])


def test_no_clips_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FeaturesError, match="no clips"):
        read_features([tmp_path])


def test_features_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "00000.parquet").touch()
    with pytest.raises(FeaturesError, match=r"earlier version, \*\.parquet, expected \*\.arrow; run `enclap prepare`"):
        read_features([tmp_path])
