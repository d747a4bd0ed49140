"""The settings of each model. Nothing heavy is imported here, so that a config is checked within a second."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

RANDOM = "random:"  # before a model type: random weights, trained from scratch
TRANSFORMERS = "hf:"  # before the hub id or directory of an audio encoder of transformers
EncoderScoring = Literal["cosine", "distance"]  # what a retriever's encoder_score is (`EncoderScore`)
Fallback = Literal["best", "most-fluent"]  # who stays where the fluency filter leaves nobody


Kind = TypeVar("Kind", bound="Settings")


class Settings(BaseModel):
    """Fields of a configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")

    def convert(self, kind: type[Kind], **more: Any) -> Kind:
        """Return a `kind` with the fields that both classes have, and `more`, which takes precedence."""
        shared = kind.model_fields.keys() & type(self).model_fields.keys() - more.keys()
        return kind(**{field: getattr(self, field) for field in shared}, **more)


class LogMelConfig(Settings):
    """Parameters of the log-mel spectrogram. The defaults are those of ConvNeXt-Tiny on AudioSet (arXiv 2306.00830)."""

    sample_rate: int = Field(32_000, gt=0, description="sampling rate of the audio that it is computed from, in Hz")
    n_fft: int = Field(1024, gt=0, description="length of the window and of its Fourier transform, in samples")
    hop_length: int = Field(320, gt=0, description="distance from one frame to the next, in samples")
    n_mels: int = Field(224, gt=0, description="mel bands")
    f_min: float = Field(50.0, ge=0, description="lower edge of the lowest band, in Hz")
    f_max: float = Field(14_000.0, gt=0, description="upper edge of the highest band, in Hz")


# The settings of an audio encoder that have no effect on one of transformers, and those that have one on these alone.
ON_LOG_MELS = (
    "checkpoint", "pretrained", "depths", "dims", "layer_scale", "drop_path", "freq_mask", "time_mask", "max_frames",
)  # fmt: skip
ON_WAVEFORMS = ("sample_rate", "window_s", "max_seconds")


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


class FluencyDetectorConfig(Settings):
    """A fluency-error detector's own settings."""

    text_encoder: TextEncoderConfig = TextEncoderConfig(name="bert-base-uncased")
    checkpoint: str | None = Field(
        None,
        description="FENSE's published error detector (arXiv 2110.04684), to be used as it is: the file "
        "`echecker_clotho_audiocaps_base.ckpt`; `text_encoder` names the encoder whose config and tokenizer it needs",
    )

    @model_validator(mode="after")
    def _published_encoder_stays_as_it_is(self) -> FluencyDetectorConfig:
        if not self.checkpoint:
            return self
        if self.text_encoder.name.startswith(RANDOM):
            raise ValueError(
                f"text_encoder: found {self.text_encoder.name!r}, expected the encoder that checkpoint was trained "
                "from, by hub id or directory"
            )
        given = self.text_encoder.model_dump(exclude={"name"})
        published = TextEncoderConfig(pooling="cls").model_dump(exclude={"name"})
        for field, value in given.items():
            if value not in (published[field], TextEncoderConfig.model_fields[field].default):
                raise ValueError(
                    f"text_encoder.{field}: found {value!r}, expected {published[field]!r} as checkpoint has it; give "
                    "the encoder's name alone"
                )
        return self


def _check_length(settings: SamplingConfig | BeamConfig) -> None:
    """Check that captions can end."""
    if settings.min_tokens > settings.max_tokens:
        raise ValueError(
            f"min_tokens: found {settings.min_tokens}, expected at most max_tokens ({settings.max_tokens})"
        )
    if settings.no_repeat_ngram == 1:
        raise ValueError(
            "no_repeat_ngram: found 1, expected 0 or at least 2; BART's captions start with EOS, so none could end"
        )


class SamplingConfig(Settings):
    """How candidates are sampled.

    The defaults are those of the system whose sampling and reranking the paper follows (arXiv 2309.17352, in its
    published code); what it does not use is off.
    """

    candidates: int = Field(50, gt=0, description="candidates per captioner and clip; 50 as in arXiv 2309.17352")
    temperature: float = Field(
        0.5, gt=0, description="divisor of the logits, lower is more conservative; 0.5 as in arXiv 2309.17352"
    )
    top_p: float = Field(
        0.95,
        gt=0,
        le=1,
        description="nucleus sampling: the likeliest tokens that reach this probability; 0.95 as in arXiv 2309.17352; "
        "1: off",
    )
    top_k: int = Field(
        50,
        ge=0,
        description="only this many likeliest tokens; 50 is the default of transformers' generate(), which arXiv "
        "2309.17352 leaves as it is; 0: off",
    )
    min_p: float = Field(
        0.0, ge=0, lt=1, description="only tokens with at least this share of the likeliest one's probability; 0: off"
    )
    typical_p: float = Field(1.0, gt=0, le=1, description="locally typical sampling (arXiv 2202.00666); 1: off")
    epsilon_cutoff: float = Field(0.0, ge=0, lt=1, description="only tokens of at least this probability; 0: off")
    repetition_penalty: float = Field(
        1.0, gt=0, description="above 1, makes tokens that were used before less likely; 1: off"
    )
    min_tokens: int = Field(5, ge=0, description="shortest candidate, in tokens; 5 as in arXiv 2309.17352")
    max_tokens: int = Field(30, gt=2, description="longest candidate, in tokens; 30 as in arXiv 2309.17352")
    no_repeat_ngram: int = Field(
        3, ge=0, description="no sequence of this many tokens comes twice; 3 as in arXiv 2309.17352; 0: off"
    )
    static_cache: bool = Field(
        False,
        description="keep decoder keys and values in tensors of fixed shape, for which transformers compiles on GPUs",
    )

    @model_validator(mode="after")
    def _captions_can_end(self) -> SamplingConfig:
        _check_length(self)
        return self


class BeamConfig(Settings):
    """The search that runs beside sampling: beam search, diverse beam search or contrastive search.

    A plain `enclap` stands for exactly EnCLAP's beam search (arXiv 2401.17690, in its published code): 4 beams until 4
    captions ended, no three tokens twice, no least length, and at most 50 tokens, the last of which is a forced EOS.
    """

    beams: int = Field(4, gt=0, description="number of beams; 1: greedy")
    groups: int = Field(
        1,
        gt=0,
        description="groups that the beams are divided into; above 1: diverse beam search (arXiv 1610.02424), with a "
        "caption from each group",
    )
    diversity_penalty: float = Field(
        0.5,
        ge=0,
        description="diverse beam search: taken from a token's score for each beam of earlier groups that takes it at "
        "the same step",
    )
    penalty_alpha: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="above 0: contrastive search (arXiv 2202.06417), with this weight of the degeneration penalty; "
        "needs `beams: 1`",
    )
    top_k: int = Field(4, gt=1, description="contrastive search: tokens tried at each step")
    min_tokens: int = Field(5, ge=0, description="shortest caption, in tokens")
    max_tokens: int = Field(50, gt=2, description="longest caption, in tokens")
    no_repeat_ngram: int = Field(3, ge=0, description="no sequence of this many tokens comes twice; 0: off")

    forced_eos: bool = Field(
        False,
        description="beam search: the last of `max_tokens` tokens is EOS, which costs the beams nothing, as in EnCLAP; "
        "if false, EOS follows them and counts as any other token",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_alone(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value != "enclap":
            raise ValueError(f"found {value!r}, expected `enclap` or fields such as `beams`")
        return {"beams": 4, "min_tokens": 0, "max_tokens": 50, "no_repeat_ngram": 3, "forced_eos": True}

    @model_validator(mode="after")
    def _one_kind_of_search(self) -> BeamConfig:
        _check_length(self)
        if self.beams % self.groups:
            raise ValueError(f"groups: {self.groups} does not divide beams ({self.beams})")
        if self.penalty_alpha and self.beams > 1:
            raise ValueError(f"penalty_alpha: contrastive search needs beams: 1, found {self.beams}")
        if self.forced_eos and (self.groups > 1 or self.penalty_alpha):
            raise ValueError("forced_eos: is for beam search alone, with neither groups nor penalty_alpha")
        for name, used, needed in (
            ("diversity_penalty", self.groups > 1, "groups above 1"),
            ("top_k", self.penalty_alpha > 0, "penalty_alpha above 0"),
        ):
            if not used and getattr(self, name) != BeamConfig.model_fields[name].default:
                raise ValueError(f"{name} has no effect without {needed}")
        return self


class TokenEnsembleConfig(Settings):
    """Captioners with the same tokenizer that choose every token together.

    Their candidates are added to those of each captioner alone.
    """

    members: list[str] = Field(min_length=2, description="names of the captioners")
    average: Literal["log-probabilities", "probabilities"] = Field(
        "log-probabilities", description="what of the captioners' predictions is averaged at each token"
    )
