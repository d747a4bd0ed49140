"""The ConvNeXt audio encoder: published sizes, exact masking of padding."""

import numpy as np
import pytest
import torch

from models.audio_encoder import AudioEncoder
from models.log_mel import LogMel, pad_log_mels
from models.settings import AudioEncoderConfig, LogMelConfig

SMALL = AudioEncoderConfig(backbone="random:convnext", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), layer_scale=1.0)


def test_published_sizes() -> None:
    """28,222,767 trainable parameters with the 527-class head; [96, 252, 56] behind the stem for 10 s."""
    encoder = AudioEncoder(AudioEncoderConfig(), n_mels=224)
    head = 768 * 527 + 527
    assert sum(p.numel() for p in encoder.parameters()) + head == 28_222_767
    assert encoder.trunk.stem(torch.zeros(1, 1, 1001, 224)).shape == (1, 96, 252, 56)
    assert encoder.dim == 768


@pytest.mark.parametrize("frames", [33, 64, 101, 250])
def test_padding_never_changes_an_embedding(frames: int) -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(SMALL, n_mels=64).eval()
    encoder.bn0.running_mean.normal_()
    clips = [np.random.default_rng(n).normal(size=(n, 64)).astype(np.float16) for n in (frames, 300)]
    with torch.no_grad():
        alone = encoder(*pad_log_mels(clips[:1]))
        together = encoder(*pad_log_mels(clips))
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)


def test_spec_augment_changes_training_only() -> None:
    config = SMALL.model_copy(update={"freq_mask": 8, "time_mask": 16})
    encoder = AudioEncoder(config, n_mels=64)
    batch = pad_log_mels([np.ones((100, 64), np.float16) * np.arange(64)] * 4)
    encoder.eval()
    with torch.no_grad():
        assert torch.equal(encoder(*batch), encoder(*batch))
        encoder.train()
        encoder.bn0.eval()
        assert not torch.equal(encoder(*batch), encoder(*batch))


def test_not_a_convnext_is_refused() -> None:
    with pytest.raises(ValueError, match="resnet18"):
        AudioEncoder(AudioEncoderConfig.model_validate("resnet18"), n_mels=64)


def test_log_mel_of_ten_seconds_has_the_published_frames() -> None:
    log_mel = LogMel(LogMelConfig())
    t = np.arange(320_000) / 32_000
    found = log_mel(np.sin(2 * np.pi * 1000 * t).astype(np.float32))
    assert found.shape == (1001, 224)
    assert found.dtype == np.float16
    # A 1 kHz tone peaks in the mel band around 1 kHz, and silence is at the floor.
    centres = np.linspace(0, 1, 224)
    assert 0.2 < centres[found[500].argmax()] < 0.5
    assert np.all(log_mel(np.zeros(32_000, np.float32)) == -100)
