"""ConvNeXt over log-mels, as the AudioSet tagger that the retriever starts from (arXiv 2306.00830)."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from models.settings import AudioEncoderConfig

STEM_STRIDE = 4
STEM_PADDING = 4  # frames of zeros at either end in time, none in frequency


class AudioEncoder(nn.Module):
    """Batch norm over mels, ConvNeXt, then mean over frequency and max plus mean over time.

    Padding never changes an embedding: what lies behind a clip's end is zeroed before each convolution,
    which is what that convolution's own zero padding would show it were the clip alone.
    """

    def __init__(self, config: AudioEncoderConfig, n_mels: int) -> None:
        super().__init__()
        self.config = config
        # timm gives its modules no types of their own.
        trunk: Any = _trunk(config)
        old = trunk.stem[0]
        trunk.stem[0] = nn.Conv2d(1, old.out_channels, STEM_STRIDE, STEM_STRIDE, padding=(STEM_PADDING, 0))
        self.bn0 = nn.BatchNorm2d(n_mels)
        self.trunk: Any = trunk
        self.dim: int = trunk.num_features

    def forward(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Embed log_mel [B, frames, mels] whose rows hold `lengths` [B] valid frames; returns [B, dim]."""
        x = self.bn0(log_mel.unsqueeze(1).transpose(1, 3)).transpose(1, 3)
        if self.training:
            x = self._spec_augment(x)
        x = self.trunk.stem(_zero_behind(x, lengths))
        lengths = (lengths + 2 * STEM_PADDING - STEM_STRIDE) // STEM_STRIDE + 1
        for stage in self.trunk.stages:
            if isinstance(stage.downsample, nn.Sequential):
                norm, convolution = stage.downsample
                x = convolution(_zero_behind(norm(x), lengths))
                lengths = lengths // 2
            for block in stage.blocks:
                x = block(_zero_behind(x, lengths))
        return self.trunk.head.norm(_pool(x, lengths)).flatten(1)

    def _spec_augment(self, x: Tensor) -> Tensor:
        """Zero two bands of mels and two stretches of frames a clip (zero is the mean behind bn0)."""
        for axis, widest in ((2, self.config.time_mask), (3, self.config.freq_mask)):
            for _ in range(2 if widest else 0):
                width = torch.randint(0, widest + 1, (len(x), 1), device=x.device)
                start = (torch.rand(len(x), 1, device=x.device) * (x.shape[axis] - width).clamp_min(0)).long()
                at = torch.arange(x.shape[axis], device=x.device)
                masked = (at >= start) & (at < start + width)
                shape = (len(x), 1, -1, 1) if axis == 2 else (len(x), 1, 1, -1)
                x = x.masked_fill(masked.view(shape), 0.0)
        return x


def _trunk(config: AudioEncoderConfig) -> nn.Module:
    common: dict[str, Any] = {"in_chans": 1, "num_classes": 0, "drop_path_rate": config.drop_path}
    if config.backbone == "random:convnext":
        return ConvNeXt(depths=config.depths, dims=config.dims, ls_init_value=config.layer_scale, **common)
    if not config.backbone.startswith("convnext") or not timm.is_model(config.backbone):
        raise ValueError(f"audio_encoder.backbone: {config.backbone!r} is no ConvNeXt of timm")
    return timm.create_model(config.backbone, ls_init_value=config.layer_scale, **common)


def _zero_behind(x: Tensor, lengths: Tensor) -> Tensor:
    """Zero x [B, C, T, F] from each clip's own length on."""
    valid = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
    return x * valid[:, None, :, None]


def _pool(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean over frequency; max over time plus mean over time, of the valid frames. [B, C, T, F] to [B, C, 1, 1]."""
    x = x.mean(3)
    lengths = lengths.clamp_min(1)
    valid = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
    highest = x.masked_fill(~valid[:, None], -torch.inf).amax(2)
    mean = (x * valid[:, None]).sum(2) / lengths[:, None]
    return (highest + mean)[:, :, None, None]
