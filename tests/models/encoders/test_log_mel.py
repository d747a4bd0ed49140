"""Log-mels: the published front end, random stretches."""

import numpy as np
import pytest
from transformers.audio_utils import mel_filter_bank

from models.encoders.log_mel import LogMel, crop
from models.settings import LogMelConfig


def test_the_default_is_the_front_end_of_the_audioset_convnext() -> None:
    """Frame by frame in numpy: 1024 samples every 320 under a Hann window, centred, reflected; Slaney's mels."""
    waveform = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, 512, mode="reflect"), 1024)[::320]
    power = np.abs(np.fft.rfft(frames * np.hanning(1025)[:-1])) ** 2
    filters = mel_filter_bank(513, 224, 50, 14_000, 32_000, norm="slaney", mel_scale="slaney")
    found = LogMel(LogMelConfig())(waveform)
    assert found.shape == (101, 224)
    expected = 10 * np.log10(np.maximum(power @ filters, 1e-10))
    np.testing.assert_allclose(found, expected, atol=0.05)  # decibels; float16 has steps of 0.03 there


@pytest.mark.parametrize("frames", [31, 32])
def test_no_longer_clips_are_left_whole(frames: int) -> None:
    log_mel = np.zeros((frames, 3), np.float16)
    assert crop(log_mel, 32, np.random.default_rng(0)) is log_mel
    assert crop(log_mel, None, np.random.default_rng(0)) is log_mel


def test_a_stretch_may_lie_anywhere() -> None:
    log_mel = np.repeat(np.arange(36, dtype=np.float16)[:, None], 3, axis=1)
    rng = np.random.default_rng(0)
    stretches = [crop(log_mel, 32, rng) for _ in range(100)]
    assert {len(stretch) for stretch in stretches} == {32}
    assert {int(stretch[0, 0]) for stretch in stretches} == {0, 1, 2, 3, 4}
    assert all(np.array_equal(np.diff(stretch[:, 0]), np.ones(31)) for stretch in stretches)
