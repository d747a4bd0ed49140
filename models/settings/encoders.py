"""The settings of audio and text encoders, and of the log-mels that audio encoders read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from .base import RANDOM, TRANSFORMERS, Settings

ON_LOG_MELS = (
    "checkpoint", "pretrained", "depths", "dims", "layer_scale", "drop_path", "freq_mask", "time_mask", "max_frames",
)  # fmt: skip
ON_WAVEFORMS = ("sample_rate", "window_s", "max_seconds")


class LogMelConfig(Settings):
    """Parameters of the log-mel spectrogram. The defaults are those of ConvNeXt-Tiny on AudioSet (arXiv 2306.00830)."""

    sample_rate: int = Field(32_000, gt=0, description="sampling rate of the audio that it is computed from, in Hz")
    n_fft: int = Field(1024, gt=0, description="length of the window and of its Fourier transform, in samples")
    hop_length: int = Field(320, gt=0, description="distance from one frame to the next, in samples")
    n_mels: int = Field(224, gt=0, description="mel bands")
    f_min: float = Field(50.0, ge=0, description="lower edge of the lowest band, in Hz")
    f_max: float = Field(14_000.0, gt=0, description="upper edge of the highest band, in Hz")

    @model_validator(mode="after")
    def _bands_have_widths(self) -> LogMelConfig:
        if self.f_min >= self.f_max:
            raise ValueError(f"f_max: found {self.f_max:g}, expected more than f_min ({self.f_min:g})")
        if self.f_max > self.sample_rate / 2:
            most = f"{self.sample_rate / 2:g} at most, half of sample_rate"
            raise ValueError(f"f_max: found {self.f_max:g}, expected {most}: there is nothing above it")
        return self


# The settings of an audio encoder that have no effect on one of transformers, and those that have one on these alone.


class AudioEncoderConfig(Settings):
    """The encoder of a retriever's audio: log-mels, or waveforms where it is one of transformers.

    Its weights are those of `checkpoint`, timm's own (`pretrained`), or new ones where neither is given; those of an
    encoder of transformers are the published ones.
    """

    backbone: str = Field(
        "convnext_tiny",
        description="a timm model by name, whose features are a map over time and frequency or the tokens of one, as "
        "vision transformers have them; `random:convnext` with the sizes in `depths` and `dims`; or an audio encoder "
        "of transformers, `hf:` and its hub id or directory, which hears through its own feature extractor",
    )
    checkpoint: str | None = Field(
        None,
        description="published AudioSet weights of convnext_tiny (arXiv 2306.00830): Zenodo's .pth file, or the hub's "
        "model.safetensors or its directory",
    )
    pretrained: bool = Field(False, description="start from timm's weights for `backbone`, from the hub or its cache")
    depths: tuple[int, int, int, int] = Field((3, 3, 9, 3), description="blocks of each stage of a ConvNeXt")
    dims: tuple[int, int, int, int] = Field((96, 192, 384, 768), description="channels of each stage of a ConvNeXt")
    layer_scale: float = Field(
        1e-6, gt=0, description="initial scale of a ConvNeXt's residual branches; small new models need about 1"
    )
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="probability that a residual branch is skipped (stochastic depth; training only)"
    )
    freq_mask: int = Field(
        0, ge=0, description="SpecAugment: greatest width of each of two frequency masks, in mel bands (training only)"
    )
    time_mask: int = Field(
        0, ge=0, description="SpecAugment: greatest width of each of two time masks, in frames (training only)"
    )
    max_frames: int | None = Field(
        None, ge=32, description="crop clips to a random stretch of this many frames (training only); if none, whole"
    )
    sample_rate: int = Field(
        16_000, gt=0, description="`hf:` encoders: sampling rate of its feature extractor, in Hz; CLAP has 48000"
    )
    window_s: float | None = Field(
        None,
        ge=0.1,
        description="`hf:` encoders: seconds that it hears at once. The embedding of a longer clip is the mean of "
        "those of its windows, weighted by their lengths. If none, what its feature extractor pads to, or 30 s",
    )
    max_seconds: float | None = Field(
        None,
        ge=0.1,
        description="`hf:` encoders: crop clips to a random stretch of as many seconds (training only); if none, whole",
    )
    finetuning: Literal["full", "frozen", "lora"] = Field(
        "full",
        description="train all weights, none, or low-rank adapters of all linear layers (LoRA, arXiv 2106.09685), "
        "which are merged into the weights when the training is done",
    )
    frozen_layers: int = Field(
        0, ge=0, description="with finetuning full: number of layers, the deepest ones, that are not trained"
    )
    lora_rank: int = Field(8, gt=0, description="rank of the LoRA adapters")
    lora_alpha: int = Field(16, gt=0, description="the LoRA adapters' output is scaled by `lora_alpha / lora_rank`")

    @model_validator(mode="before")
    @classmethod
    def _backbone_alone(cls, value: Any) -> Any:
        return {"backbone": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> AudioEncoderConfig:
        if self.checkpoint and self.pretrained:
            raise ValueError("checkpoint and pretrained exclude each other")
        if self.pretrained and self.backbone.startswith(RANDOM):
            raise ValueError(f"pretrained: there are no pretrained weights of {self.backbone!r}")
        if self.finetuning != "full" and self.backbone.startswith(RANDOM):
            raise ValueError(f"finetuning: {self.finetuning!r} leaves the weights of {self.backbone!r} untrained")
        return self

    @model_validator(mode="after")
    def _settings_belong_to_the_front_end(self) -> AudioEncoderConfig:
        others = ON_LOG_MELS if self.transformer else ON_WAVEFORMS
        for name in others:
            if getattr(self, name) != AudioEncoderConfig.model_fields[name].default:
                kind = "an encoder of transformers" if self.transformer else "an encoder of log-mels"
                raise ValueError(f"{name} has no effect with backbone {self.backbone!r}, {kind}")
        if self.frozen_layers and self.finetuning != "full":
            raise ValueError(f"frozen_layers has no effect with finetuning {self.finetuning!r}, only with 'full'")
        return self

    @property
    def transformer(self) -> str | None:
        """Get or set the hub id or directory of an encoder of transformers; None for one of log-mels."""
        return self.backbone.removeprefix(TRANSFORMERS) if self.backbone.startswith(TRANSFORMERS) else None

    @transformer.setter
    def transformer(self, name: str) -> None:
        self.backbone = f"{TRANSFORMERS}{name}"

    @property
    def waveform_rate(self) -> int | None:
        """Return the sampling rate in Hz of the waveforms that it reads; None where it reads log-mels."""
        return self.sample_rate if self.transformer else None

    def check_front_end(self, log_mel: LogMelConfig) -> None:
        """Check that the log-mels are those that the checkpoint was trained on.

        Raises:
            ValueError: naming the parameters that differ.
        """
        differing = {key: value for key, value in log_mel if self.checkpoint and value != getattr(LogMelConfig(), key)}
        if differing:
            raise ValueError(f"log_mel: {differing} differ from what audio_encoder.checkpoint was trained on")


class TextEncoderConfig(Settings):
    """The encoder of captions. A plain string stands for `name`."""

    name: str = Field(
        "BAAI/bge-base-en-v1.5",
        description="an encoder of transformers: a hub id, a local directory, or `random:<model type>` for new weights "
        "with the sizes in `sizes` and a tokenizer trained on the corpus",
    )
    pooling: Literal["cls", "mean"] | None = Field(
        None,
        description="how token states become one vector: the first token or the mean of all. If none, as the "
        "checkpoint's 1_Pooling/config.json says; without that file, the first token of a BERT and the mean of others",
    )
    finetuning: Literal["full", "frozen", "lora"] = Field(
        "full", description="train all weights of a loaded encoder, none, or low-rank adapters (LoRA, arXiv 2106.09685)"
    )
    lora_rank: int = Field(8, gt=0, description="rank of the LoRA adapters")
    lora_alpha: int = Field(16, gt=0, description="the LoRA adapters' output is scaled by `lora_alpha / lora_rank`")
    max_tokens: int = Field(64, gt=2, description="longer captions are cut to this many tokens, special ones included")
    sizes: dict[str, int | float | str] = Field(
        default={}, description="fields of the transformers config; for `random:` names only"
    )
    tokenizer: Literal["wordpiece", "bpe", "unigram"] = Field(
        "wordpiece", description="kind of tokenizer that is trained; for `random:` names only"
    )
    vocab_size: int = Field(
        2000, gt=4, description="greatest number of tokens of the trained tokenizer; for `random:` names only"
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _weights_from_scratch_are_trained(self) -> TextEncoderConfig:
        if self.finetuning != "full" and self.name.startswith(RANDOM):
            raise ValueError(f"finetuning: {self.finetuning!r} leaves the random weights of {self.name!r} untrained")
        return self
