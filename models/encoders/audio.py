"""Audio encoders over log-mels.

ConvNeXt, as in the AudioSet tagger that the retriever starts from (arXiv 2306.00830), or any other timm model whose
features are a map over time and frequency, or tokens of such a map: timm's vision transformers, which interpolate their
positions to the size of each spectrogram.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoint import plain_data
from ..imports import without
from ..settings import RANDOM, AudioEncoderConfig
from .audioset_checkpoint import load_audioset_weights
from .finetuning import Finetuned
from .front_ends import LogMelBatches

with without("wandb"):  # which timm takes seconds to import where it is installed, for a log that nothing here writes
    import timm
    from timm.layers import GlobalResponseNormMlp
    from timm.models import group_parameters
    from timm.models.convnext import ConvNeXt

STEM_STRIDE = 4
STEM_PADDING = 4  # frames of zeros at both ends in time; none in frequency
# How timm's vision transformers take spectrograms of any size: with interpolated positions, and zeros up to the next
# whole patch.
ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True}


class AudioEncoder(Finetuned):
    """Standardised mels, a trunk, then the mean over frequency and maximum plus mean over time.

    `bn0` keeps its statistics in training, too: those of the checkpoint, or of the training split (`standardise`). So
    a clip's embedding depends on nothing else in the batch, and the batch may be spread over workers or embedded in
    parts without changing its gradient.

    Padding never changes an embedding. A ConvNeXt is masked: frames after a clip's end are zeroed before each
    convolution, as the convolution's own zero padding would be if the clip were alone. Other trunks cannot be masked
    inside: there, only clips of equal length share a batch. In training, though, all clips of a batch go through such a
    trunk together, or its batch norms would see single clips; padding then looks like frames of the mean.
    """

    def __init__(self, config: AudioEncoderConfig, n_mels: int) -> None:
        super().__init__()
        self.config = config
        self.front_end = LogMelBatches(config)
        self.bn0 = nn.BatchNorm1d(n_mels).eval()
        # timm gives its modules no types of their own.
        trunk: Any = _trunk(config, pretrained=False)
        self.masked = _is_maskable(trunk)
        if self.masked:
            trunk.stem[0].padding = (STEM_PADDING, 0)
        else:
            _check_features(trunk, config.backbone, n_mels)
        self.trunk: Any = trunk
        self.dim: int = trunk.num_features
        self.apply_finetuning()

    @classmethod
    def create(cls, config: AudioEncoderConfig, n_mels: int) -> AudioEncoder:
        """Build for training, with the weights that `config` names.

        Raises:
            CheckpointError: if the weights do not fit.
        """
        encoder = cls(config.model_copy(update={"finetuning": "full", "frozen_layers": 0}), n_mels)
        if config.pretrained:
            with plain_data(config.backbone):
                published = _trunk(config, pretrained=True)
            encoder.trunk.load_state_dict(published.state_dict())
        if config.checkpoint:
            load_audioset_weights(encoder, config.checkpoint)
        encoder.continue_training(config)
        return encoder

    @classmethod
    def layout(cls, config: AudioEncoderConfig, n_mels: int) -> AudioEncoder:
        """Lay out what `create` builds on the meta device, without weights."""
        with torch.device("meta"):
            return cls(config, n_mels)

    @classmethod
    def empty(cls, config: AudioEncoderConfig, n_mels: int, directory: Path) -> AudioEncoder:
        """Build the architecture with random weights; the config says all of it, `directory` nothing more."""
        return cls(config, n_mels)

    def save_layout(self, directory: Path) -> None:
        """Write nothing: the config says all of the architecture."""

    def standardise(self, log_mels: Iterable[np.ndarray]) -> None:
        """Set the statistics of bn0 to the mean and variance of each mel in log_mels [frames_i, mels]."""
        frames, total, squares = 0, np.zeros(self.bn0.num_features), np.zeros(self.bn0.num_features)
        for log_mel in log_mels:
            frames += len(log_mel)
            total += log_mel.sum(0, dtype=np.float64)
            squares += np.square(log_mel, dtype=np.float64).sum(0)
        mean = total / frames
        # A mel that never changes must not be divided by zero.
        variance = np.maximum(squares / frames - np.square(mean), 1e-3)
        self.bn0.running_mean = torch.from_numpy(mean).to(self.bn0.weight)
        self.bn0.running_var = torch.from_numpy(variance).to(self.bn0.weight)

    def train(self, mode: bool = True) -> AudioEncoder:
        """Switch to training or evaluation mode; bn0 keeps its statistics in both, a frozen trunk all."""
        super().train(mode)
        if self.config.finetuning == "frozen":
            self.trunk.eval()
        self.bn0.eval()
        return self

    def forward(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Embed log_mel [B, frames, mels], whose rows hold `lengths` [B] valid frames, as [B, dim]."""
        x = self._normalise(log_mel, lengths)
        if self.training:
            x = self._spec_augment(x, lengths)
        x = x.unsqueeze(1)
        if self.masked:
            return self._convnext(x, lengths)
        if self.training:
            states = _feature_map(self.trunk, x)
            return self._pooled(states, (lengths * states.shape[2] / x.shape[2]).ceil().long())
        embeddings = x.new_empty(len(x), self.dim)
        for length in sorted(set(lengths.tolist())):
            states = _feature_map(self.trunk, x[lengths == length, :, :length])
            embeddings[lengths == length] = self._pooled(states, lengths.new_full((len(states),), states.shape[2]))
        return embeddings

    def trim(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Return part of a batch without frames that none of its clips has."""
        return log_mel[:, : int(lengths.max())]

    @property
    def adapted(self) -> nn.Module:
        """Return what low-rank adapters are put into."""
        trunk: nn.Module = self.trunk
        return trunk

    def layer_depths(self) -> dict[str, int]:
        """Return by name how many layers below the output each parameter acts, from 1 on."""
        layers: dict[str, int] = group_parameters(self.trunk, self.trunk.group_matcher(), reverse=True)
        depths = {f"trunk.{name}": max(layers.values()) + 1 - layer for name, layer in layers.items()}
        return depths | {f"bn0.{name}": max(depths.values()) for name, _ in self.bn0.named_parameters()}

    def _normalise(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Standardise each mel, and set the frames after each clip's end to zero, which is the mean."""
        valid = torch.arange(log_mel.shape[1], device=log_mel.device) < lengths[:, None]
        standardised: Tensor = self.bn0(log_mel.transpose(1, 2)).transpose(1, 2)
        return standardised * valid[:, :, None]

    def _spec_augment(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Zero two stretches of each clip's frames and two bands of mels in x [B, frames, mels]."""
        mels = torch.full_like(lengths, x.shape[2])
        for axis, sizes, widest in ((1, lengths, self.config.time_mask), (2, mels, self.config.freq_mask)):
            for _ in range(2 if widest else 0):
                width = torch.randint(0, widest + 1, (len(x),), device=x.device)
                start = (torch.rand(len(x), device=x.device) * (sizes - width).clamp_min(0)).long()
                at = torch.arange(x.shape[axis], device=x.device)
                covered = (at >= start[:, None]) & (at < (start + width)[:, None])
                x = x.masked_fill(covered.unsqueeze(3 - axis), 0.0)
        return x

    def _pooled(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Pool states [B, C, T, F] into [B, C], then norm them if the trunk has its last norm after pooling."""
        pooled = _pool(states, lengths)
        normed: Tensor = self.trunk.fc_norm(pooled) if hasattr(self.trunk, "fc_norm") else pooled
        return normed

    def _convnext(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Embed x [B, 1, frames, mels] as [B, dim], masked at every layer."""
        x = self.trunk.stem(x)
        lengths = (lengths + 2 * STEM_PADDING - STEM_STRIDE) // STEM_STRIDE + 1
        for stage in self.trunk.stages:
            if isinstance(stage.downsample, nn.Sequential):
                norm, convolution = stage.downsample
                x = convolution(_zero_after_end(norm(x), lengths))
                lengths = lengths // 2
            for block in stage.blocks:
                x = block(_zero_after_end(x, lengths))
        normed: Tensor = self.trunk.head.norm(_pool(x, lengths)[:, :, None, None])
        return normed.flatten(1)


def _trunk(config: AudioEncoderConfig, pretrained: bool) -> Any:
    """Build the timm model of a config, with timm's own weights or random ones."""
    common: dict[str, Any] = {"in_chans": 1, "num_classes": 0}
    if config.drop_path:
        common["drop_path_rate"] = config.drop_path
    if config.backbone.startswith((f"{RANDOM}convnext", "convnext_")):
        common["ls_init_value"] = config.layer_scale
    if config.backbone == f"{RANDOM}convnext":
        trunk: Any = ConvNeXt(depths=config.depths, dims=config.dims, **common)
        # timm's standard deviation of 0.02 suits images; one for the 16 inputs of a patch here learns faster.
        trunk.stem[0].reset_parameters()
        return trunk
    if not timm.is_model(config.backbone):
        raise ValueError(f"audio_encoder.backbone: {config.backbone!r} is not a model of timm")
    try:
        return timm.create_model(config.backbone, pretrained=pretrained, **common, **ANY_SIZE)
    except TypeError as error:  # a network of convolutions takes any size as it is
        if not any(option in str(error) for option in ANY_SIZE):
            raise
    return timm.create_model(config.backbone, pretrained=pretrained, **common)


def _feature_map(trunk: Any, x: Tensor) -> Tensor:
    """Return the features of x [B, 1, frames, mels] as a map [B, C, T, F]; tokens are laid out as their patches lie."""
    states: Tensor = trunk.forward_features(x)
    if states.dim() != 3 or not hasattr(trunk, "num_prefix_tokens"):
        return states
    rows, columns = trunk.patch_embed.dynamic_feat_size(x.shape[2:])
    patches = states[:, trunk.num_prefix_tokens :].transpose(1, 2)
    return patches.reshape(*patches.shape[:2], rows, columns)


def _is_maskable(trunk: nn.Module) -> bool:
    """Return whether a trunk is a ConvNeXt as first published, which can be masked.

    That is one with patches, no norm over all positions, and the last norm after pooling.
    """
    return (
        isinstance(trunk, ConvNeXt)
        and trunk.stem[0].kernel_size == trunk.stem[0].stride == (STEM_STRIDE, STEM_STRIDE)
        and isinstance(trunk.norm_pre, nn.Identity)
        and not any(isinstance(module, GlobalResponseNormMlp) for module in trunk.modules())
    )


@torch.no_grad()
def _check_features(trunk: Any, backbone: str, n_mels: int) -> None:
    """Refuse a trunk whose features are no map [B, C, T, F] nor its tokens, or that takes images of one size only."""
    try:
        shapes = [tuple(_feature_map(trunk.eval(), torch.zeros(1, 1, frames, n_mels)).shape) for frames in (64, 96)]
    except (AssertionError, AttributeError, RuntimeError, ValueError) as error:
        raise ValueError(f"audio_encoder.backbone: {backbone!r} does not take clips of any length: {error}") from error
    finally:
        trunk.train()
    if any(len(shape) != 4 or shape[1] != trunk.num_features for shape in shapes):
        raise ValueError(
            f"audio_encoder.backbone: {backbone!r} gives features of shape {shapes[0]}, "
            f"expected a map [1, {trunk.num_features}, time, frequency]"
        )


def _zero_after_end(x: Tensor, lengths: Tensor) -> Tensor:
    """Zero x [B, C, T, F] from each clip's own length on."""
    valid = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
    return x * valid[:, None, :, None]


def _pool(x: Tensor, lengths: Tensor) -> Tensor:
    """Pool x [B, C, T, F] into [B, C]: mean over frequency, then maximum plus mean over the valid frames."""
    x = x.mean(3)
    lengths = lengths.clamp_min(1)
    valid = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
    highest = x.masked_fill(~valid[:, None], -torch.inf).amax(2)
    mean = (x * valid[:, None]).sum(2) / lengths[:, None]
    return highest + mean
