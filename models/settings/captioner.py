"""The settings of captioners."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Settings


class CaptionerSettings(Settings):
    """A captioner's own settings: architecture and losses."""

    language_model: str = Field(
        "facebook/bart-base",
        description="a BART, mBART or PLBART: a hub id, a local directory, or `random:bart` for new weights with the "
        "sizes in `sizes` and a tokenizer trained on the corpus",
    )
    checkpoint: str | None = Field(
        None,
        description="directory of a model of EnCLAP's own scripts to start from; `language_model` then gives only the "
        "tokenizer, where the directory holds none",
    )
    attn_implementation: Literal["sdpa", "eager"] = Field(
        "sdpa", description="transformers' implementation of attention; both compute the same"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, more time"
    )
    long_clips: Literal["crop", "windows", "pool", "interpolate"] = Field(
        "crop",
        description="what becomes of clips with more codec frames than there are positions: a random stretch in "
        "training and the beginning afterwards; or all of the clip, in windows encoded separately, by averaging "
        "neighbouring frames, or by interpolating positions",
    )
    sizes: dict[str, int | float] = Field(
        default={}, description="fields of the transformers config; for `random:` names only"
    )
    tokenizer: Literal["wordpiece", "bpe", "unigram"] = Field(
        "bpe", description="kind of tokenizer that is trained; for `random:` names only"
    )
    vocab_size: int = Field(
        2000, gt=4, description="greatest number of tokens of the trained tokenizer; for `random:` names only"
    )
    max_caption_tokens: int = Field(
        64, gt=2, description="longer captions are cut to this many tokens in training, special ones included"
    )
    label_smoothing: float = Field(0.2, ge=0, lt=1, description="label smoothing of the caption loss")
    mcm_weight: float = Field(0.7, ge=0, description="weight of the masked codec modelling (MCM) loss; 0: off")
    mcm_codebook_weights: list[Annotated[float, Field(ge=0)]] | None = Field(
        None, description="weight of each codebook within the MCM loss; if none, 1/2, 1/4, 1/8 and so on"
    )
    mcm_probability: float = Field(
        0.15, ge=0, lt=1, description="share of each codebook's frames to mask; less where spans overlap"
    )
    mcm_span: int = Field(10, gt=0, description="length of a mask, in codec frames")


class CaptionerConfig(CaptionerSettings):
    """The settings of a captioner, and the shapes of its inputs."""

    codebooks: int = Field(gt=0, description="number of the codec's codebooks that are read")
    codebook_size: int = Field(gt=1, description="entries of a codebook")
    audio_embedding_dim: int = Field(gt=0, description="dimensions of the audio embeddings")

    @model_validator(mode="after")
    def _one_weight_for_each_codebook(self) -> CaptionerConfig:
        given = self.mcm_codebook_weights
        if given and len(given) != self.codebooks:
            raise ValueError(
                f"mcm_codebook_weights: found {len(given)}, expected one for each of {self.codebooks} codebooks"
            )
        return self
