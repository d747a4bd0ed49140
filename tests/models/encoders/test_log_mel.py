"""Log-mels: the published front end, random stretches."""

import numpy as np
import pytest
import torch
import torchaudio
from transformers.audio_utils import mel_filter_bank

from models.encoders.log_mel import LogMel, crop, mel_filters
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


def _clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, samples).astype(np.float32) for samples in (9000, 32_000, 100, 513, 31_999, 1)]


def test_a_clip_alone_has_the_values_of_torchaudio() -> None:
    config = LogMelConfig()
    mel = torchaudio.transforms.MelSpectrogram(
        sample_rate=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        f_min=config.f_min,
        f_max=config.f_max,
        norm="slaney",
        mel_scale="slaney",
    )
    for waveform in _clips()[:2]:
        expected = (10 * mel(torch.from_numpy(waveform)).clamp_min(1e-10).log10()).T.half().numpy()
        assert np.array_equal(LogMel(config)(waveform), expected)


@pytest.mark.parametrize("rate", [16_000, 32_000, 44_100])
def test_filters_are_those_of_torchaudio(rate: int) -> None:
    config = LogMelConfig(sample_rate=rate, n_fft=512, n_mels=32, f_min=0 if rate == 16_000 else 50, f_max=rate / 2)
    found = mel_filters(config)
    expected = torchaudio.functional.melscale_fbanks(
        257, config.f_min, config.f_max, 32, rate, norm="slaney", mel_scale="slaney"
    )
    assert torch.equal(found, expected)


def test_a_batch_has_the_values_of_each_clip_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: clips of other lengths in one batch. A product of other sizes may round a value to its neighbour."""
    log_mel, clips = LogMel(LogMelConfig()), _clips()
    alone = [log_mel(waveform) for waveform in clips]
    monkeypatch.setattr("models.encoders.log_mel.batches_by_length", lambda lengths, _: [range(len(lengths))])
    for together, expected in zip(log_mel.of_clips(clips), alone, strict=True):
        assert together.dtype == np.float16
        np.testing.assert_array_max_ulp(together, expected, maxulp=1, dtype=np.float16)


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
