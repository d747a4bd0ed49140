"""The settings of retrievers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from .base import Settings
from .encoders import AudioEncoderConfig, LogMelConfig, TextEncoderConfig

LOSSES_WITH = {  # the losses that each of these settings belongs to; it has no effect on others
    "epsilon": ("m-ltm",),
    "transported_mass": ("m-ltm",),
    "temperature": ("nt-xent",),
    "margin": ("triplet",),
    "hard_negatives": ("nt-xent", "triplet"),
}


class WrongCaptionsConfig(Settings):
    """Captions changed so that they are wrong for their clip, which a retriever learns to tell from the right one."""

    number: int = Field(1, gt=0, description="wrong captions for each clip of a batch, where its caption has places")
    kinds: list[Literal["order", "event"]] = Field(
        default=["order", "event"],
        min_length=1,
        description="what is changed: the order of two events, or an event, by that of another clip",
    )
    weight: float = Field(1.0, gt=0, description="factor of their loss, which is added to that of the pairs")


class RetrieverSettings(Settings):
    """A retriever's own settings: architecture and loss."""

    audio_encoder: AudioEncoderConfig = AudioEncoderConfig()
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    captions: Literal["normalised", "raw"] = Field(
        "normalised",
        description="form in which training captions, queries and candidates are read: in lower case and without "
        "punctuation, as in m-LTM (arXiv 2405.10084), or as they are",
    )
    joint_dim: int = Field(1024, gt=0, description="dimensions of the space that audio and text are embedded in")
    hidden_dim: int = Field(2048, gt=0, description="width of the two-layer projections into that space")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout of the projections")
    loss: Literal["m-ltm", "nt-xent", "triplet"] = Field(
        "m-ltm", description="optimal transport under the learned metric (arXiv 2405.10084), contrastive, or triplet"
    )
    metric: Literal["full", "diagonal", "identity"] = Field(
        "full",
        description="matrix of the distance that is trained and retrieved by. The default of nt-xent and triplet is "
        "the identity, which is the cosine",
    )
    epsilon: float = Field(0.03, gt=0, description="m-ltm: entropic regularisation, relative to the largest distance")
    transported_mass: float = Field(
        1.0,
        gt=0,
        le=1,
        description="m-ltm: share of the mass that must be transported; below 1 the worst pairs of a batch may stay "
        "unmatched, for noisy captions",
    )
    temperature: float = Field(0.07, ge=0.01, description="nt-xent: initial temperature; it is learned, down to 0.01")
    margin: float = Field(0.2, ge=0, description="triplet: margin, as a difference of cosines")
    hard_negatives: int = Field(
        0, ge=0, description="nt-xent, triplet: for each pair count only this many most similar negatives; 0: all"
    )
    mixup_alpha: float = Field(
        0.0,
        ge=0,
        description="mix a quarter of a batch's clips with another clip each, at a share of the power drawn from "
        "Beta(alpha, alpha), and join their captions (training only); 0: off",
    )
    mixup_joins: Literal["together", "sequence", "either"] = Field(
        "together",
        description="mixup_alpha: how two clips are joined: sounding together (`A and B`), one after the other (`A "
        "followed by B`; the clip is as long as both), or each pair either way",
    )
    wrong_captions: WrongCaptionsConfig | None = Field(
        None,
        description="hard negatives made of the captions themselves (training only, English): with events in the wrong "
        "order or an event of another clip; if none, off",
    )

    @model_validator(mode="after")
    def _joins_are_of_mixup(self) -> RetrieverSettings:
        if self.mixup_joins != "together" and not self.mixup_alpha:
            raise ValueError(f"mixup_joins: {self.mixup_joins!r} has no effect without mixup_alpha above 0")
        return self

    @model_validator(mode="before")
    @classmethod
    def _cosine_by_default(cls, value: Any) -> Any:
        contrastive = isinstance(value, dict) and value.get("loss", "m-ltm") != "m-ltm"
        return {"metric": "identity", **value} if contrastive else value

    @model_validator(mode="after")
    def _settings_belong_to_the_loss(self) -> RetrieverSettings:
        for name, losses in LOSSES_WITH.items():
            value = getattr(self, name)
            if self.loss not in losses and value != RetrieverSettings.model_fields[name].default:
                raise ValueError(f"{name} has no effect with loss {self.loss!r}, only with {' or '.join(losses)}")
        return self


class RetrieverConfig(RetrieverSettings):
    """The settings of a retriever, and the front end of the log-mels that it reads."""

    captions: Literal["normalised", "raw"] = "raw"  # where a member does not say: it is from before there was a choice
    log_mel: LogMelConfig

    @model_validator(mode="after")
    def _front_end_is_the_checkpoints(self) -> RetrieverConfig:
        self.audio_encoder.check_front_end(self.log_mel)
        return self
