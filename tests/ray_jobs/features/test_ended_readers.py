"""A clip that ends each process that reads it is set aside, and the rest of its shard is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from models.audio import AudioError
from ray_jobs.features.ended_readers import MOST, ReadingRecord
from tests.models.encoded_audio import sound

READ = """
import json, os, sys
from ray_jobs.experiment.config import FeaturesConfig
from ray_jobs.features import shards

load = shards.load_clip
shards.load_clip = lambda path, *a, **k: os._exit(9) if path.endswith("b.wav") else load(path, *a, **k)
features = FeaturesConfig()
made = shards.ShardReader(features, features.log_mel.sample_rate)({"shard": sys.argv[1]})
print(json.dumps({"usable": json.loads(made["usable"]), "quarantine": json.loads(made["quarantine"])}))
"""


def test_the_rest_of_its_shard_is_read(tmp_path: Path) -> None:
    clips = []
    for name in "abc":
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, sound(), 16_000)
        clips.append({"clip_id": name, "path": str(path), "captions": [], "freesound_id": "", "youtube_id": ""})
    shard = json.dumps({"path": str(tmp_path / "train" / "00000.arrow"), "inputs": "", "clips": clips})

    def read() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", READ, shard], capture_output=True, text=True, check=False)

    assert [read().returncode for _ in range(MOST)] == [9] * MOST
    last = read()
    assert last.returncode == 0, last.stderr[-2000:]
    made = json.loads(last.stdout)
    assert [clip["clip_id"] for clip in made["usable"]] == ["a", "c"]
    [(name, path, reason)] = made["quarantine"]
    assert (name, path) == ("b", clips[1]["path"])
    assert f"{MOST} processes ended while they read it" in reason
    assert not list((tmp_path / "train").iterdir())  # the next time it is tried anew


def test_a_record_that_was_cut_counts_nothing(tmp_path: Path) -> None:
    shard = tmp_path / "00000.arrow"
    for _ in range(MOST):
        ReadingRecord(shard).begin("a.wav")
    with pytest.raises(AudioError, match=r"a\.wav: 2 processes ended"):
        ReadingRecord(shard).begin("a.wav")
    ReadingRecord(shard).begin("b.wav")  # another was read since
    [file] = tmp_path.iterdir()
    for content in ("", '["b.wav"', "[1]", "7"):
        file.write_text(content)
        ReadingRecord(shard).begin("b.wav")
