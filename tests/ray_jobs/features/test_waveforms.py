"""Waveforms beside feature shards: what was decoded, in the clips' order, and refused where they are of other clips."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from models.audio import load_audio
from ray_jobs.features.dataset import read_features
from ray_jobs.features.files import FeaturesError
from ray_jobs.features.waveforms import missing_waveforms, waveform_file, write_shard_waveforms

from .clips import clips, write

RATE = 16_000


def audio(folder: Path, number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Clips whose files are there, of different lengths."""
    written = clips(number, seed)
    for row, clip in enumerate(written):
        clip["path"] = str(folder / f"{seed}-{row}.wav")
        samples = np.random.default_rng(row).integers(-32_768, 32_768, RATE // 10 * (row + 1)).astype(np.int16)
        soundfile.write(clip["path"], samples, RATE, subtype="PCM_16")
    return written


def prepared(folder: Path) -> list[Path]:
    """Two shards of five clips."""
    shards = [folder / "train" / f"{number:05d}.arrow" for number in range(2)]
    for shard, (number, seed) in zip(shards, [(3, 0), (2, 1)], strict=True):
        write(shard, audio(folder, number, seed))
    return shards


def test_waveforms_are_those_of_the_clips(tmp_path: Path) -> None:
    for shard in prepared(tmp_path):
        write_shard_waveforms({"shard": str(shard), "rate": RATE}, longest_s=0.25)
    found = read_features([tmp_path / "train"]).hearing(RATE)
    assert found.waveforms is found.audio
    for path, waveform in zip(found.paths, found.audio, strict=True):
        assert waveform.dtype == np.int16
        assert np.array_equal(waveform, soundfile.read(path, dtype="int16")[0][: RATE // 4])
    assert np.array_equal(found.head(4).audio[3], found.audio[3])
    assert np.shares_memory(found.audio[1], found.audio[1]), "mapped, not copied"
    assert found.hearing(None).audio is found.log_mels


def test_waveforms_have_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    for shard in prepared(tmp_path):
        write_shard_waveforms({"shard": str(shard), "rate": 8000}, longest_s=30.0)
    found = read_features([tmp_path / "train"]).hearing(8000)
    wanted = load_audio(Path(found.paths[2]), 8000)
    assert np.abs(found.audio[2] / 32_768 - np.clip(wanted, -1, 1)).max() < 1e-4


def test_missing_waveforms_and_those_of_other_clips_are_refused(tmp_path: Path) -> None:
    shards = prepared(tmp_path)
    features = read_features([tmp_path / "train"])
    with pytest.raises(FeaturesError, match=r"found no waveforms at 16000 Hz .* `enclap prepare` makes them"):
        features.hearing(RATE)
    for shard in shards:
        write_shard_waveforms({"shard": str(shard), "rate": RATE}, longest_s=30.0)
    assert missing_waveforms(shards, RATE) == []
    waveform_file(shards[0], RATE).write_bytes(waveform_file(shards[1], RATE).read_bytes())
    assert missing_waveforms(shards, RATE) == [shards[0]]
    with pytest.raises(FeaturesError, match=r"of the clips in 00000\.arrow"):
        features.hearing(RATE)
