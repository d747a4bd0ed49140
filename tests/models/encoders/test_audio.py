"""Audio encoders: published sizes, padding that changes nothing, augmentation, backbones of timm."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from models.encoders.audio import AudioEncoder
from models.encoders.log_mel import LogMel, pad_log_mels
from models.settings import AudioEncoderConfig, LogMelConfig

SMALL = AudioEncoderConfig(backbone="random:convnext", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), layer_scale=1.0)


def test_published_sizes() -> None:
    """28,222,767 trainable parameters with the 527-class head; [96, 252, 56] after the stem for 10 s."""
    encoder = AudioEncoder(AudioEncoderConfig(), n_mels=224)
    head = 768 * 527 + 527
    assert sum(p.numel() for p in encoder.parameters()) + head == 28_222_767
    assert encoder.trunk.stem(torch.zeros(1, 1, 1001, 224)).shape == (1, 96, 252, 56)
    assert encoder.dim == 768


def scattered(config: AudioEncoderConfig) -> AudioEncoder:
    """An encoder none of whose parameters and statistics is at a value that hides what it does."""
    torch.manual_seed(0)
    encoder = AudioEncoder(config, n_mels=64)
    for name, tensor in encoder.named_parameters():
        tensor.data.add_(0.1 * torch.randn_like(tensor) if "trunk" in name else torch.randn_like(tensor))
    assert encoder.bn0.running_mean is not None
    encoder.bn0.running_mean.normal_()
    return encoder


def clips(*frames: int) -> list[np.ndarray]:
    return [np.random.default_rng(n).normal(size=(n, 64)).astype(np.float16) for n in frames]


# All but the first cannot be masked: norms over all positions, overlapping patches, no ConvNeXt at all. The last
# one's last norm is after pooling.
@pytest.mark.parametrize(
    "backbone", ["random:convnext", "convnextv2_atto", "convnext_atto_ols", "resnet18", "test_vit", "test_vit2"]
)
@pytest.mark.parametrize("frames", [33, 64, 101, 250])
def test_padding_never_changes_an_embedding(frames: int, backbone: str) -> None:
    encoder = scattered(SMALL.model_copy(update={"backbone": backbone})).eval()
    with torch.no_grad():
        alone = encoder(*pad_log_mels(clips(frames)))
        together = encoder(*pad_log_mels(clips(frames, 300)))
    assert alone.shape == (1, encoder.dim)
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)


def test_statistics_are_those_of_the_training_split_and_stay() -> None:
    encoder = AudioEncoder(SMALL, n_mels=64)
    batch = clips(40, 200)
    encoder.standardise(batch)
    frames = np.concatenate(batch).astype(np.float64)
    mean, variance = encoder.bn0.running_mean, encoder.bn0.running_var
    assert mean is not None
    assert variance is not None
    np.testing.assert_allclose(mean, frames.mean(0), atol=1e-5)
    np.testing.assert_allclose(variance, frames.var(0), rtol=1e-5)
    seen: list[torch.Tensor] = []
    encoder.trunk.stem.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    encoder.train()(*pad_log_mels(clips(300)))
    assert encoder.bn0.running_mean is not None
    np.testing.assert_allclose(encoder.bn0.running_mean, frames.mean(0), atol=1e-5)
    encoder(*pad_log_mels(batch))
    assert torch.equal(seen[1][0, 0, 40:], torch.zeros(160, 64)), "padding is the mean, not -100 dB"


def test_a_silent_mel_does_not_blow_up() -> None:
    encoder = AudioEncoder(SMALL, n_mels=64)
    batch = [np.full((50, 64), -100, np.float16)]
    encoder.standardise(batch)
    assert encoder(*pad_log_mels(batch)).isfinite().all()


def test_a_vision_transformer_keeps_its_weights_at_any_size() -> None:
    """Its positions are interpolated, as timm does for images of another size; the padding of a patch is zeros."""
    encoder = scattered(AudioEncoderConfig(backbone="test_vit")).eval()
    log_mel, lengths = pad_log_mels(clips(160))  # 10 x 4 patches
    with torch.no_grad():
        found = encoder(log_mel, lengths)
        x = encoder.bn0(log_mel.transpose(1, 2)).transpose(1, 2)[:, None]
        at_size = timm.create_model("test_vit", num_classes=0, in_chans=1, img_size=(160, 64)).eval()
        wanted = dict(encoder.trunk.state_dict())
        wanted["pos_embed"] = timm.layers.resample_abs_pos_embed(wanted["pos_embed"], [10, 4])
        at_size.load_state_dict(wanted)
        tokens = at_size.forward_features(x)[:, 1:].reshape(1, 10, 4, 64).mean(2)
    torch.testing.assert_close(found, tokens.amax(1) + tokens.mean(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_050"])
def test_any_convolutional_backbone_trains(backbone: str) -> None:
    encoder = scattered(AudioEncoderConfig(backbone=backbone))
    encoder(*pad_log_mels(clips(40, 90, 200))).square().sum().backward()
    gradients = [p.grad for name, p in encoder.named_parameters() if "conv_head" not in name]  # after the features
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert encoder.bn0.weight.grad is not None
    assert encoder.bn0.weight.grad.abs().min() > 0


def test_spec_augment_changes_training_only() -> None:
    config = SMALL.model_copy(update={"freq_mask": 8, "time_mask": 16})
    encoder = AudioEncoder(config, n_mels=64)
    batch = pad_log_mels([np.ones((100, 64), np.float16) * np.arange(64)] * 4)
    encoder.eval()
    with torch.no_grad():
        assert torch.equal(encoder(*batch), encoder(*batch))
        encoder.train()
        assert not torch.equal(encoder(*batch), encoder(*batch))


def test_spec_augment_masks_within_a_clip() -> None:
    """Also within a short one beside a long one, where a stretch of the batch's length would mostly miss it."""
    encoder = AudioEncoder(SMALL.model_copy(update={"time_mask": 12}), n_mels=64)
    seen: list[torch.Tensor] = []
    encoder.trunk.stem.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    for _ in range(20):
        encoder(*pad_log_mels([np.ones((n, 64), np.float16) for n in (40, 400)]))
    masked = torch.stack([(x[:, 0, :, 0] == 0).sum(1) - torch.tensor([360, 0]) for x in seen])
    assert (masked > 0).float().mean(0).min() > 0.8
    assert masked.max() <= 24


@pytest.mark.parametrize(
    ("backbone", "message"),
    [("resnet1", "'resnet1' is not a model of timm"), ("mixer_s16_224", "does not take clips of any length")],
)
def test_what_cannot_be_an_audio_encoder_is_refused(backbone: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioEncoder(AudioEncoderConfig.model_validate(backbone), n_mels=64)


STEMS = [("convnext_atto", "stem.0.weight"), ("resnet18", "conv1.weight"), ("test_vit", "patch_embed.proj.weight")]


@pytest.mark.parametrize(("backbone", "stem"), STEMS)
def test_starts_from_timms_weights(backbone: str, stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked for as the hub lays them out, three colours summed to one; the stem's padding stays ours."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    published = timm.create_model(backbone, num_classes=1000)
    repository = tmp_path / f"models--{published.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    state = published.state_dict()
    save_file(state, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    encoder = AudioEncoder.create(AudioEncoderConfig(backbone=backbone, pretrained=True), n_mels=64)
    torch.testing.assert_close(encoder.trunk.state_dict()[stem], state[stem].sum(1, keepdim=True))
    if backbone == "convnext_atto":
        assert encoder.trunk.stem[0].padding == (4, 0)


@pytest.mark.parametrize(
    ("backbone", "deepest", "last"),
    [
        ("random:convnext", "trunk.stem.0.weight", "trunk.head.norm.weight"),
        ("resnet18", "trunk.conv1.weight", "trunk.layer4.1.conv2.weight"),
        ("test_vit", "trunk.patch_embed.proj.weight", "trunk.norm.weight"),
    ],
)
def test_depths_of_layers_count_from_the_output(backbone: str, deepest: str, last: str) -> None:
    encoder = AudioEncoder(SMALL.model_copy(update={"backbone": backbone}), n_mels=64)
    depths = encoder.layer_depths()
    assert depths.keys() == {name for name, _ in encoder.named_parameters()}
    assert depths[last] == 1
    assert depths[deepest] == depths["bn0.weight"] == max(depths.values())
    assert set(depths.values()) == set(range(1, max(depths.values()) + 1))


def test_low_rank_adapters_merge() -> None:
    config = AudioEncoderConfig(backbone="test_vit", finetuning="lora", lora_rank=2)
    plain, encoder = AudioEncoder(AudioEncoderConfig(backbone="test_vit"), 64), AudioEncoder(config, 64).eval()
    torch.manual_seed(0)
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == ("lora_" in name or "bn0" in name)
        if "lora_" in name:
            parameter.data.normal_(std=0.3)
    batch = pad_log_mels(clips(50, 80))
    with torch.no_grad():
        adapted = encoder(*batch)
        encoder.merge_adapters()
        torch.testing.assert_close(encoder(*batch), adapted, atol=1e-4, rtol=1e-4)
    assert encoder.state_dict().keys() == plain.state_dict().keys()


def test_adapters_of_a_backbone_without_linear_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="finetuning: 'lora' adapts linear layers, and ResNet has none"):
        AudioEncoder(AudioEncoderConfig(backbone="resnet18", finetuning="lora"), 64)


def test_a_frozen_trunk_keeps_its_statistics_and_trains_nothing() -> None:
    encoder = AudioEncoder(AudioEncoderConfig(backbone="resnet18", finetuning="frozen"), 64).train()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    before = encoder.trunk.bn1.running_mean.clone()
    encoder(*pad_log_mels(clips(50, 80)))
    assert torch.equal(encoder.trunk.bn1.running_mean, before)


def test_freezes_the_deepest_layers() -> None:
    encoder = AudioEncoder(AudioEncoderConfig(backbone="test_vit", frozen_layers=2), 64)
    depths = encoder.layer_depths()
    frozen = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, depth in depths.items() if depth > max(depths.values()) - 2}
    assert 0 < len(frozen) < len(depths)


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
