"""Feature shards: what goes in comes out; codecs do not mix."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_jobs.features.files import FeaturesError, StoredMatrices, read_features, write_shard


def clips(number: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "clip_id": f"clip-{seed}-{row}",
            "path": f"/audio/{row}.wav",
            "freesound_id": str(row),
            "youtube_id": "",
            "audio_sha256": f"{row:064x}",
            "duration_s": 1.5 + row,
            "captions": [f"caption {row}", 'ä, "quoted"'],
            "codes": rng.integers(0, 1024, (5 + row, 3)).astype(np.int16),
            "log_mel": rng.normal(size=(7 + 2 * row, 4)).astype(np.float16),
        }
        for row in range(number)
    ]


def test_round_trip_over_shards(tmp_path: Path) -> None:
    written = [clips(3), clips(2, seed=1)]
    for number, shard in enumerate(written):
        write_shard(tmp_path / f"{number:05d}.parquet", shard, {"codec": {"name": "x"}}, codebooks=3, mels=4)
    write_shard(tmp_path / "00002.parquet", [], {"codec": {"name": "x"}}, codebooks=3, mels=4)
    found = read_features([tmp_path])
    expected = written[0] + written[1]
    assert found.clip_ids == [clip["clip_id"] for clip in expected]
    assert found.captions == [clip["captions"] for clip in expected]
    for row, clip in enumerate(expected):
        assert found.codes[row].dtype == np.int16
        np.testing.assert_array_equal(found.codes[row], clip["codes"])
        np.testing.assert_array_equal(found.log_mels[row], clip["log_mel"])
    assert len(found.head(2)) == 2
    assert found.file_names == ["0.wav", "1.wav", "2.wav", "0.wav", "1.wav"]
    found.paths[1] = "/corpus/test.parquet#1"
    assert found.file_names[1] == found.clip_ids[1]
    assert not list(tmp_path.glob(".*"))


def test_features_larger_than_the_memory_stay_in_their_files(tmp_path: Path) -> None:
    for number in range(3):
        write_shard(tmp_path / f"{number}.parquet", clips(20, number), {"codec": {}}, codebooks=3, mels=4)
    there, stored = read_features([tmp_path]), read_features([tmp_path], in_memory_bytes=0)
    assert isinstance(there.codes, list)
    assert isinstance(stored.codes, StoredMatrices)
    assert stored.clip_ids == there.clip_ids
    for part, whole in ((stored, there), (stored.head(25), there.head(25))):
        assert len(part.codes) == len(part.log_mels) == len(whole)
        for row in np.random.default_rng(0).permutation(len(whole)):
            np.testing.assert_array_equal(part.codes[row], whole.codes[row])
            np.testing.assert_array_equal(part.log_mels[row], whole.log_mels[row])


def test_codes_of_different_codecs_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(["dac-44khz", "dac-16khz"]):
        write_shard(tmp_path / f"{number:05d}.parquet", clips(2), {"codec": {"name": name}}, codebooks=3, mels=4)
    with pytest.raises(FeaturesError, match=r"dac-16khz.*dac-44khz"):
        read_features([tmp_path])


def test_no_clips_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FeaturesError, match="no clips"):
        read_features([tmp_path])
