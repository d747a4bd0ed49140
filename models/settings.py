"""What a user may set of each model. Light to import: no torch here, so that a config is checked at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

RANDOM = "random:"  # before a model type: weights from scratch


Kind = TypeVar("Kind", bound="Settings")


class Settings(BaseModel):
    """Fields of a configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")

    def convert(self, kind: type[Kind], **more: Any) -> Kind:
        """Return a `kind` made of the fields that both have and of `more`."""
        shared = kind.model_fields.keys() & type(self).model_fields.keys() - more.keys()
        return kind(**{field: getattr(self, field) for field in shared}, **more)


class LogMelConfig(Settings):
    """The front end's parameters. Defaults are those of ConvNeXt-Tiny on AudioSet (arXiv 2306.00830)."""

    sample_rate: int = Field(32_000, gt=0, description="Hz")
    n_fft: int = Field(1024, gt=0)
    hop_length: int = Field(320, gt=0, description="samples")
    n_mels: int = Field(224, gt=0)
    f_min: float = Field(50.0, ge=0, description="Hz")
    f_max: float = Field(14_000.0, gt=0, description="Hz")


class AudioEncoderConfig(Settings):
    """`backbone` is a timm model by name, or `random:convnext` with sizes in `depths` and `dims`.

    Weights: `checkpoint`, timm's own (`pretrained`), or from scratch where neither is given.
    """

    backbone: str = "convnext_tiny"
    checkpoint: str | None = Field(
        None,
        description="published AudioSet weights of convnext_tiny (arXiv 2306.00830): Zenodo's .pth, or the hub's "
        "model.safetensors or its directory",
    )
    pretrained: bool = Field(False, description="start from timm's weights of that name, of the hub or its cache")
    depths: tuple[int, int, int, int] = (3, 3, 9, 3)
    dims: tuple[int, int, int, int] = (96, 192, 384, 768)
    layer_scale: float = Field(
        1e-6, gt=0, description="initial residual scale of a ConvNeXt; small models from scratch want about 1"
    )
    drop_path: float = Field(0.0, ge=0, lt=1)
    freq_mask: int = Field(0, ge=0, description="SpecAugment: widest mel mask, two of them (training only)")
    time_mask: int = Field(0, ge=0, description="SpecAugment: widest frame mask, two of them (training only)")
    max_frames: int | None = Field(
        None, ge=32, description="a random stretch of so many frames of longer clips (training only)"
    )

    @model_validator(mode="before")
    @classmethod
    def _backbone_alone(cls, value: Any) -> Any:
        return {"backbone": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> AudioEncoderConfig:
        if self.checkpoint and self.pretrained:
            raise ValueError("checkpoint and pretrained exclude each other")
        if self.pretrained and self.backbone.startswith(RANDOM):
            raise ValueError(f"pretrained: there are no weights of {self.backbone!r}")
        return self

    def check_front_end(self, log_mel: LogMelConfig) -> None:
        """Refuse log-mels that the checkpoint was not trained on.

        Raises:
            ValueError: naming the parameters that differ.
        """
        differing = {key: value for key, value in log_mel if self.checkpoint and value != getattr(LogMelConfig(), key)}
        if differing:
            raise ValueError(f"log_mel: {differing} differ from what audio_encoder.checkpoint was trained on")


class TextEncoderConfig(Settings):
    """`name` is a hub id, a directory, or `random:<model type>` with sizes in `sizes` and a tokenizer to train."""

    name: str = "BAAI/bge-base-en-v1.5"
    pooling: Literal["cls", "mean"] | None = Field(
        None,
        description="how token states become one vector; when left out as the checkpoint's 1_Pooling/config.json says, "
        "else the first token of a BERT and the mean of all others",
    )
    finetuning: Literal["full", "frozen", "lora"] = Field("full", description="what of a loaded encoder is trained")
    lora_rank: int = Field(8, gt=0)
    lora_alpha: int = Field(16, gt=0, description="the adapters' output is scaled by lora_alpha / lora_rank")
    max_tokens: int = Field(64, gt=2)
    sizes: dict[str, int | float | str] = Field(default={}, description="for random: fields of the transformers config")
    tokenizer: Literal["wordpiece", "bpe", "unigram"] = "wordpiece"
    vocab_size: int = Field(2000, gt=4, description="for random: size of the trained tokenizer at most")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _weights_from_scratch_are_trained(self) -> TextEncoderConfig:
        if self.finetuning != "full" and self.name.startswith(RANDOM):
            raise ValueError(f"finetuning: {self.finetuning!r} leaves the random weights of {self.name!r} untrained")
        return self


LOSSES_WITH = {  # settings that do nothing with another loss
    "epsilon": ("m-ltm",),
    "transported_mass": ("m-ltm",),
    "temperature": ("nt-xent",),
    "margin": ("triplet",),
    "hard_negatives": ("nt-xent", "triplet"),
}


class RetrieverSettings(Settings):
    """What a user chooses of a retriever: architecture and loss."""

    audio_encoder: AudioEncoderConfig = AudioEncoderConfig()
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    joint_dim: int = Field(1024, gt=0)
    hidden_dim: int = Field(2048, gt=0, description="of the two-layer projections")
    dropout: float = Field(0.2, ge=0, lt=1)
    loss: Literal["m-ltm", "nt-xent", "triplet"] = "m-ltm"
    metric: Literal["full", "diagonal", "identity"] = Field(
        "full",
        description="of the distance that is trained and retrieved by; when left out, nt-xent and triplet have the "
        "identity, which is the cosine",
    )
    epsilon: float = Field(0.03, gt=0, description="m-ltm: entropic regularisation, relative to the largest distance")
    transported_mass: float = Field(
        1.0, gt=0, le=1, description="m-ltm: below 1 the worst pairs of a batch may stay unmatched, for noisy captions"
    )
    temperature: float = Field(0.07, ge=0.01, description="nt-xent: at the start; it is learned, down to 0.01 at most")
    margin: float = Field(0.2, ge=0, description="triplet: in units of the cosine")
    hard_negatives: int = Field(
        0, ge=0, description="nt-xent, triplet: only so many of the most similar negatives count for each pair; 0: all"
    )
    mixup_alpha: float = Field(
        0.0,
        ge=0,
        description="a quarter of a batch's clips sound together with another one, each at a share of the power drawn "
        "from Beta(alpha, alpha), and their captions are joined (training only); 0: off",
    )

    @model_validator(mode="before")
    @classmethod
    def _cosine_unless_told(cls, value: Any) -> Any:
        contrastive = isinstance(value, dict) and value.get("loss", "m-ltm") != "m-ltm"
        return {"metric": "identity", **value} if contrastive else value

    @model_validator(mode="after")
    def _settings_belong_to_the_loss(self) -> RetrieverSettings:
        for name, losses in LOSSES_WITH.items():
            value = getattr(self, name)
            if self.loss not in losses and value != RetrieverSettings.model_fields[name].default:
                raise ValueError(f"{name} does nothing with loss {self.loss!r}, only with {' or '.join(losses)}")
        return self


class RetrieverConfig(RetrieverSettings):
    """With the front end that its log-mels come from."""

    log_mel: LogMelConfig

    @model_validator(mode="after")
    def _front_end_is_the_checkpoints(self) -> RetrieverConfig:
        self.audio_encoder.check_front_end(self.log_mel)
        return self


class CaptionerSettings(Settings):
    """What a user chooses of a captioner: architecture and losses.

    `language_model` is a BART, mBART or PLBART by hub id or directory, or `random:bart` with `sizes`.
    """

    language_model: str = "facebook/bart-base"
    checkpoint: str | None = Field(
        None,
        description="directory of EnCLAP's own scripts to start from; language_model then gives the tokenizer alone, "
        "where the directory holds none",
    )
    attn_implementation: Literal["sdpa", "eager"] = Field("sdpa", description="of transformers; both compute the same")
    gradient_checkpointing: bool = Field(False, description="less memory in training, a third more time")
    long_clips: Literal["crop", "windows", "pool", "interpolate"] = Field(
        "crop",
        description="of more codec frames than there are positions: a random stretch in training and the beginning "
        "else; or all of it, in windows encoded apart, by averaging neighbours, or by positions in between",
    )
    sizes: dict[str, int | float] = Field(default={}, description="for random: fields of the transformers config")
    tokenizer: Literal["wordpiece", "bpe", "unigram"] = "bpe"
    vocab_size: int = Field(2000, gt=4, description="for random: size of the trained tokenizer at most")
    max_caption_tokens: int = Field(64, gt=2)
    label_smoothing: float = Field(0.2, ge=0, lt=1)
    mcm_weight: float = Field(0.7, ge=0, description="of the masked codec modelling loss; 0 switches it off")
    mcm_codebook_weights: list[Annotated[float, Field(ge=0)]] | None = Field(
        None, description="of each codebook within that loss; 1/2, 1/4, 1/8 and so on when left out"
    )
    mcm_probability: float = Field(0.15, ge=0, lt=1)
    mcm_span: int = Field(10, gt=0, description="frames")


class CaptionerConfig(CaptionerSettings):
    """With the shapes of what it reads."""

    codebooks: int = Field(gt=0, description="of the codec, as many as are used")
    codebook_size: int = Field(gt=1)
    audio_embedding_dim: int = Field(gt=0)

    @model_validator(mode="after")
    def _a_weight_each_codebook(self) -> CaptionerConfig:
        given = self.mcm_codebook_weights
        if given and len(given) != self.codebooks:
            raise ValueError(
                f"mcm_codebook_weights: found {len(given)}, expected one for each of {self.codebooks} codebooks"
            )
        return self


class FluencyDetectorConfig(Settings):
    """Architecture of the detector."""

    text_encoder: TextEncoderConfig = TextEncoderConfig(name="bert-base-uncased")


class SamplingConfig(Settings):
    """How candidates are drawn. Defaults are those of the system the paper follows (arXiv 2309.17352), where the
    library's top_k of 50 applied unseen; here it is off unless given."""

    candidates: int = Field(30, gt=0, description="a captioner and clip")
    temperature: float = Field(0.5, gt=0)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0: off")
    min_p: float = Field(0.0, ge=0, lt=1, description="of the likeliest token's probability; 0: off")
    typical_p: float = Field(1.0, gt=0, le=1, description="locally typical sampling (arXiv 2202.00666); 1: off")
    epsilon_cutoff: float = Field(0.0, ge=0, lt=1, description="a token's least probability; 0: off")
    repetition_penalty: float = Field(1.0, gt=0, description="above 1 against words said before; 1: off")
    min_tokens: int = Field(5, ge=0)
    max_tokens: int = Field(30, gt=2)
    no_repeat_ngram: int = Field(3, ge=0, description="0: off")
    static_cache: bool = Field(
        False, description="decoder keys and values in tensors of one shape, which transformers compiles for on GPUs"
    )


class BeamConfig(Settings):
    """The search beside sampling: beam search as EnCLAP decodes, diverse beam search or contrastive search."""

    beams: int = Field(4, gt=0, description="1: greedy")
    groups: int = Field(
        1, gt=0, description="of the beams; above 1 diverse beam search (arXiv 1610.02424), a caption from each group"
    )
    diversity_penalty: float = Field(
        0.5, ge=0, description="of a token for each beam of earlier groups that takes it at the same step"
    )
    penalty_alpha: float = Field(
        0.0, ge=0, lt=1, description="above 0 contrastive search (arXiv 2202.06417): weight of unlikeness; 1 beam"
    )
    top_k: int = Field(4, gt=1, description="tokens that contrastive search tries at a step")
    min_tokens: int = Field(5, ge=0)
    max_tokens: int = Field(50, gt=2)
    no_repeat_ngram: int = Field(3, ge=0)

    @model_validator(mode="after")
    def _one_kind_of_search(self) -> BeamConfig:
        if self.beams % self.groups:
            raise ValueError(f"groups: {self.groups} do not divide beams ({self.beams})")
        if self.penalty_alpha and self.beams > 1:
            raise ValueError(f"penalty_alpha: contrastive search takes beams: 1, found {self.beams}")
        for name, used, needed in (("diversity_penalty", self.groups > 1, "groups above 1"),
                                   ("top_k", self.penalty_alpha > 0, "penalty_alpha above 0")):  # fmt: skip
            if not used and getattr(self, name) != BeamConfig.model_fields[name].default:
                raise ValueError(f"{name} does nothing without {needed}")
        return self


class TokenEnsembleConfig(Settings):
    """Captioners of one tokenizer that choose every token together; their candidates join those of each alone."""

    members: list[str] = Field(min_length=2, description="captioners")
    average: Literal["log-probabilities", "probabilities"] = "log-probabilities"
