"""Audio encoders of transformers: AST, CLAP's HTSAT, Whisper's encoder, wav2vec 2.0, HuBERT, WavLM, SEW and their like.

By hub id or directory, whatever `AutoModel` and `AutoFeatureExtractor` load: of a model with a decoder or a text side
only the audio encoder is kept. Its embedding of a window is its own pooled output, which is what AST (arXiv 2104.01778)
and CLAP (arXiv 2211.06687) were trained to make; of others it is the mean of the last states over the frames that the
window has, without those of its padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, AutoModel

from ..checkpoint import naming, plain_data
from ..files import CheckpointError
from ..published import local_architecture, local_feature_extractor
from ..settings import AudioEncoderConfig
from .audio_windows import AudioWindows
from .finetuning import Finetuned, stack_depths

UNUSED = ("masked_spec_embed",)  # weights that files may lack: of an augmentation that is switched off


class AudioTransformer(Finetuned):
    """Windows of a clip through an encoder of transformers, and the mean of their embeddings, weighted by length.

    Padding never changes an embedding: windows of waveforms of different lengths do not share a pass, and those of
    models that were trained with padding to one length are padded as for a clip alone. Statistics of batch norms stay
    as they were published, and wav2vec's masking in training is off: it draws from random numbers of its own.
    """

    def __init__(self, model: Any, front_end: AudioWindows, config: AudioEncoderConfig) -> None:
        super().__init__()
        model.config.apply_spec_augment = False
        self.model: Any = model  # of transformers, whose classes have no common type here
        self.front_end, self.config = front_end, config
        self.dim: int = model.config.hidden_size
        self.apply_finetuning()

    def standardise(self, inputs: object) -> None:
        """Do nothing: its feature extractor standardises as it was trained with."""

    @classmethod
    def create(cls, config: AudioEncoderConfig, n_mels: int = 0) -> AudioTransformer:
        """Load the published encoder that a config names; it hears no log-mels.

        Raises:
            CheckpointError: if the encoder or its feature extractor cannot be read, or lacks weights.
            ValueError: if the config does not fit the feature extractor.
        """
        assert config.transformer
        front_end = AudioWindows.of(config)
        return cls(_pretrained(config.transformer), front_end, config)

    @classmethod
    def layout(cls, config: AudioEncoderConfig, n_mels: int = 0) -> AudioTransformer:
        """Lay out what `create` builds on the meta device, without weights and network.

        Raises:
            OSError: if the sizes are those of a model that is neither on this disk nor known.
        """
        assert config.transformer
        architecture = local_architecture(config.transformer)
        extractor = local_feature_extractor(config.transformer, architecture)
        _look_at_no_numbers(architecture, extractor)
        front_end = AudioWindows(extractor, config)
        with torch.device("meta"):
            return cls(_random(architecture), front_end, config)

    @classmethod
    def empty(cls, config: AudioEncoderConfig, n_mels: int, directory: Path) -> AudioTransformer:
        """Build the architecture and front end that `save_layout` wrote into `directory`, with random weights.

        Raises:
            CheckpointError: if files are missing or damaged.
        """
        with naming(directory):
            architecture = AutoConfig.from_pretrained(directory)
        front_end = AudioWindows.of(config, directory)
        return cls(_random(architecture), front_end, config)

    def save_layout(self, directory: Path) -> None:
        """Write the config of the architecture and of the feature extractor, so that `empty` needs no network."""
        _whole_config(self.model.config).save_pretrained(directory)
        self.front_end.extractor.save_pretrained(directory)

    def train(self, mode: bool = True) -> AudioTransformer:
        """Switch to training or evaluation mode; a frozen encoder and all batch norms stay in evaluation mode."""
        super().train(mode and self.config.finetuning != "frozen")
        self.training = mode
        for module in self.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Embed the windows of B clips as [B, dim].

        Args:
            features: [B, windows, ...], from `AudioWindows.collate`.
            lengths: [B, windows] samples of each window, 0 where there is none; on the CPU, so that no GPU is waited
                for.
        """
        of_clips: list[list[int]] = lengths.tolist()
        sizes = [size for of_clip in of_clips for size in of_clip]
        windows, found, groups = features.flatten(0, 1), list[Tensor](), self._groups(sizes)
        for rows in groups:
            samples = [sizes[row] for row in rows]
            own = windows if len(rows) == len(windows) else windows[torch.tensor(rows, device=windows.device)]
            found.append(self.embed_windows(own if self.front_end.padded_to else own[:, : samples[0]], samples).float())
        order = [row for rows in groups for row in rows]
        clips = [row // lengths.shape[1] for row in order]
        weights = [sizes[row] / sum(of_clips[clip]) for row, clip in zip(order, clips, strict=True)]
        embedded = torch.cat(found)
        weighted = embedded * embedded.new_tensor(weights)[:, None]
        owners = torch.tensor(clips, device=windows.device)
        return embedded.new_zeros(len(features), self.dim).index_add(0, owners, weighted)

    def embed_windows(self, windows: Tensor, samples: Sequence[int]) -> Tensor:
        """Embed N windows [N, ...], in one pass, as [N, dim].

        Args:
            samples: N lengths of the windows in samples, all equal where windows are waveforms.
        """
        # A feature extractor of CLAP says of a clip alone that it is longer than a window, whether it is or not.
        fused = getattr(self.model.config, "enable_fusion", False)
        more = {"is_longer": torch.ones(len(windows), 1, dtype=torch.bool, device=windows.device)} if fused else {}
        output = self.model(windows, **more)
        if getattr(output, "pooler_output", None) is not None:
            pooled: Tensor = output.pooler_output
            return pooled
        states: Tensor = output.last_hidden_state
        if not self.front_end.padded_to:
            return states.mean(1)
        frames = [-(-states.shape[1] * number // self.front_end.padded_to) for number in samples]
        ends = torch.tensor(frames, device=states.device)
        valid = torch.arange(states.shape[1], device=states.device) < ends[:, None]
        return (states * valid[:, :, None]).sum(1) / ends[:, None].to(states.dtype)

    @property
    def adapted(self) -> nn.Module:
        """Return what low-rank adapters are put into."""
        model: nn.Module = self.model
        return model

    def layer_depths(self) -> dict[str, int]:
        """Return by name how many layers below the output each parameter acts, from 1 on."""
        return stack_depths(self, self.model.config.num_hidden_layers)

    def trim(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return part of a batch without windows that none of its clips has."""
        return features[:, : int((lengths > 0).sum(1).max())]

    def _groups(self, sizes: Sequence[int]) -> list[list[int]]:
        """Return the rows of windows that share a pass: all that there are, or those of each length."""
        rows = [row for row, size in enumerate(sizes) if size]
        if self.front_end.padded_to:
            return [rows]
        return [[row for row in rows if sizes[row] == size] for size in sorted({sizes[row] for row in rows})]


def _pretrained(name: str) -> Any:
    """Load the audio encoder of a model of transformers, and refuse one with weights that are missing.

    transformers itself only warns, and draws them at random.
    """
    remedy = "expected the hub id or directory of a model of transformers"
    with naming(f"audio_encoder.backbone: {name}", remedy), plain_data(name):
        whole, report = AutoModel.from_pretrained(name, output_loading_info=True)
    part = _audio_part(whole)
    prefix = next(prefix for prefix, module in whole.named_modules() if module is part)
    own = {f"{prefix}.{key}" if prefix else key for key in part.state_dict() if key not in UNUSED}
    if missing := sorted(own & set(report["missing_keys"])):
        raise CheckpointError(f"{name}: no weights of {', '.join(missing[:5])} ({len(missing)} in all)")
    return part


def _random(architecture: Any) -> Any:
    """Build the audio encoder of an architecture with random weights, and only lay out what is beside it."""
    with torch.device("meta"):
        part = _audio_part(AutoModel.from_config(architecture))
    return type(part)(part.config)


def _look_at_no_numbers(architecture: Any, extractor: Any) -> None:
    """Switch off what looks at numbers, which a layout has none of: layers skipped at random, and CLAP's fusion."""
    for name in ("layerdrop", "encoder_layerdrop"):
        if hasattr(architecture, name):
            setattr(architecture, name, 0.0)
    if architecture.model_type == "clap":
        architecture.audio_config.enable_fusion, extractor.truncation = False, "rand_trunc"


def _audio_part(model: Any) -> Any:
    """Return the audio encoder within a model: of CLAP the side that hears, of Whisper what is before the decoder."""
    if hasattr(model, "audio_model"):
        return model.audio_model
    return model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model


def _whole_config(config: Any) -> Any:
    """Return the config by which `AutoModel` finds the architecture of an audio encoder."""
    if config.model_type != "clap_audio_model":
        return config
    whole = AutoConfig.for_model("clap")
    whole.audio_config = config
    return whole
