"""The settings of each model. Nothing heavy is imported here, so that a config is checked within a second."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

RANDOM = "random:"  # before a model type: random weights, trained from scratch


Kind = TypeVar("Kind", bound="Settings")


class Settings(BaseModel):
    """Fields of a configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")

    def convert(self, kind: type[Kind], **more: Any) -> Kind:
        """Return a `kind` with the fields that both classes have, and `more`, which takes precedence."""
        shared = kind.model_fields.keys() & type(self).model_fields.keys() - more.keys()
        return kind(**{field: getattr(self, field) for field in shared}, **more)


class LogMelConfig(Settings):
    """Parameters of the log-mel front end. Defaults are those of ConvNeXt-Tiny on AudioSet (arXiv 2306.00830)."""

    sample_rate: int = Field(32_000, gt=0, description="sample rate of the audio in Hz")
    n_fft: int = Field(1024, gt=0, description="window length in samples")
    hop_length: int = Field(320, gt=0, description="distance of the frames in samples")
    n_mels: int = Field(224, gt=0, description="number of mel bands")
    f_min: float = Field(50.0, ge=0, description="lowest frequency of the bands in Hz")
    f_max: float = Field(14_000.0, gt=0, description="highest frequency of the bands in Hz")


class AudioEncoderConfig(Settings):
    """The audio encoder of a retriever.

    `backbone` is a timm model by name, or `random:convnext` with sizes in `depths` and `dims`. Its weights come from
    `checkpoint`, from timm (`pretrained`), or are random where neither is given.
    """

    backbone: str = Field("convnext_tiny", description="name of a timm model, or random:convnext")
    checkpoint: str | None = Field(
        None,
        description="published AudioSet weights of convnext_tiny (arXiv 2306.00830): the .pth file from Zenodo, or "
        "model.safetensors from the hub or the directory that holds it",
    )
    pretrained: bool = Field(False, description="start from timm's weights of that name, from the hub or its cache")
    depths: tuple[int, int, int, int] = Field((3, 3, 9, 3), description="for random:convnext: blocks of each stage")
    dims: tuple[int, int, int, int] = Field(
        (96, 192, 384, 768), description="for random:convnext: channels of each stage"
    )
    layer_scale: float = Field(
        1e-6, gt=0, description="initial residual scale of a ConvNeXt; about 1 suits small models from scratch"
    )
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth: largest rate of dropped blocks")
    freq_mask: int = Field(0, ge=0, description="SpecAugment: two masks of at most this many mels (training)")
    time_mask: int = Field(0, ge=0, description="SpecAugment: two masks of at most this many frames (training)")
    max_frames: int | None = Field(
        None, ge=32, description="crop longer clips at random to this many frames (training)"
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
            raise ValueError(f"pretrained: there are no pretrained weights of {self.backbone!r}")
        return self

    def check_front_end(self, log_mel: LogMelConfig) -> None:
        """Check that the log-mels are those that the checkpoint was trained on.

        Raises:
            ValueError: naming the parameters that differ.
        """
        differing = {key: value for key, value in log_mel if self.checkpoint and value != getattr(LogMelConfig(), key)}
        if differing:
            raise ValueError(f"log_mel: {differing} differ from what audio_encoder.checkpoint was trained on")


class TextEncoderConfig(Settings):
    """The text encoder of a retriever or fluency detector.

    `name` is a hub id, a directory, or `random:<model type>` with sizes in `sizes` and a tokenizer that is trained.
    """

    name: str = Field("BAAI/bge-base-en-v1.5", description="hub id, directory, or random:<model type>")
    pooling: Literal["cls", "mean"] | None = Field(
        None,
        description="how token states become one vector; by default as the checkpoint's 1_Pooling/config.json says, "
        "and without such a file cls for BERT and mean for others",
    )
    finetuning: Literal["full", "frozen", "lora"] = Field(
        "full", description="training of a loaded encoder: of all weights, of none, or of low-rank adapters"
    )
    lora_rank: int = Field(8, gt=0, description="lora: rank of the adapters")
    lora_alpha: int = Field(16, gt=0, description="lora: scales the adapters' output by lora_alpha / lora_rank")
    max_tokens: int = Field(64, gt=2, description="longer captions are cut off")
    sizes: dict[str, int | float | str] = Field(default={}, description="for random: fields of the transformers config")
    tokenizer: Literal["wordpiece", "bpe", "unigram"] = Field(
        "wordpiece", description="for random: kind of the tokenizer that is trained"
    )
    vocab_size: int = Field(2000, gt=4, description="for random: largest size of the trained tokenizer")

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


class RetrieverSettings(Settings):
    """Architecture and loss of a retriever, as a user chooses them."""

    audio_encoder: AudioEncoderConfig = AudioEncoderConfig()
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    joint_dim: int = Field(1024, gt=0, description="dimensions of the space that audio and captions share")
    hidden_dim: int = Field(2048, gt=0, description="hidden dimensions of the two-layer projections into it")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout of these projections")
    loss: Literal["m-ltm", "nt-xent", "triplet"] = Field(
        "m-ltm", description="optimal transport under a learned metric, or a contrastive loss"
    )
    metric: Literal["full", "diagonal", "identity"] = Field(
        "full",
        description="form of the learned distance in training and retrieval; when left out, identity (the cosine) for "
        "nt-xent and triplet",
    )
    epsilon: float = Field(0.03, gt=0, description="m-ltm: entropic regularisation, relative to the largest distance")
    transported_mass: float = Field(
        1.0, gt=0, le=1, description="m-ltm: below 1, the worst pairs of a batch may stay unmatched (noisy captions)"
    )
    temperature: float = Field(
        0.07, ge=0.01, description="nt-xent: initial value; it is learned, and never falls below 0.01"
    )
    margin: float = Field(0.2, ge=0, description="triplet: margin in units of the cosine")
    hard_negatives: int = Field(
        0, ge=0, description="nt-xent, triplet: number of the most similar negatives that count for a pair; 0: all"
    )
    mixup_alpha: float = Field(
        0.0,
        ge=0,
        description="above 0, a quarter of a batch's clips is mixed with another clip, the shares of the power drawn "
        "from Beta(alpha, alpha), and their captions are joined (training); 0: off",
    )

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

    log_mel: LogMelConfig

    @model_validator(mode="after")
    def _front_end_is_the_checkpoints(self) -> RetrieverConfig:
        self.audio_encoder.check_front_end(self.log_mel)
        return self


class CaptionerSettings(Settings):
    """Architecture and losses of a captioner, as a user chooses them.

    `language_model` is a BART, mBART or PLBART by hub id or directory, or `random:bart` with `sizes`.
    """

    language_model: str = Field(
        "facebook/bart-base", description="BART, mBART or PLBART by hub id or directory, or random:bart"
    )
    checkpoint: str | None = Field(
        None,
        description="checkpoint directory of EnCLAP's own scripts to start from; language_model then gives only the "
        "tokenizer, if the directory holds none",
    )
    attn_implementation: Literal["sdpa", "eager"] = Field(
        "sdpa", description="attention function of transformers; both compute the same"
    )
    gradient_checkpointing: bool = Field(False, description="saves memory in training, for a third more time")
    long_clips: Literal["crop", "windows", "pool", "interpolate"] = Field(
        "crop",
        description="clips with more codec frames than positions: crop takes a random stretch in training and the "
        "beginning otherwise; windows are encoded separately; pool averages neighbouring frames; interpolate puts "
        "frames between the learned positions",
    )
    sizes: dict[str, int | float] = Field(default={}, description="for random: fields of the transformers config")
    tokenizer: Literal["wordpiece", "bpe", "unigram"] = Field(
        "bpe", description="for random: kind of the tokenizer that is trained"
    )
    vocab_size: int = Field(2000, gt=4, description="for random: largest size of the trained tokenizer")
    max_caption_tokens: int = Field(64, gt=2, description="longer captions are cut off")
    label_smoothing: float = Field(0.2, ge=0, lt=1, description="label smoothing of the caption loss")
    mcm_weight: float = Field(0.7, ge=0, description="weight of the masked codec modelling loss; 0 switches it off")
    mcm_codebook_weights: list[Annotated[float, Field(ge=0)]] | None = Field(
        None, description="weight of each codebook within that loss; 1/2, 1/4, 1/8 and so on when left out"
    )
    mcm_probability: float = Field(0.15, ge=0, lt=1, description="share of the codes that is masked, about")
    mcm_span: int = Field(10, gt=0, description="length of a mask in codec frames")


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
    """Architecture of a fluency detector."""

    text_encoder: TextEncoderConfig = TextEncoderConfig(name="bert-base-uncased")


class SamplingConfig(Settings):
    """The sampling of candidate captions.

    Defaults are those of the system the paper follows (arXiv 2309.17352), but for top_k: there the library's default
    of 50 applied unnoticed; here it is off unless given.
    """

    candidates: int = Field(30, gt=0, description="number of captions that a captioner draws for a clip")
    temperature: float = Field(0.5, gt=0, description="below 1, likely tokens become likelier")
    top_p: float = Field(
        0.95, gt=0, le=1, description="draw from the likeliest tokens of this total probability; 1: off"
    )
    top_k: int = Field(0, ge=0, description="draw from this many likeliest tokens; 0: off")
    min_p: float = Field(
        0.0, ge=0, lt=1, description="least probability of a token relative to the likeliest one; 0: off"
    )
    typical_p: float = Field(1.0, gt=0, le=1, description="locally typical sampling (arXiv 2202.00666); 1: off")
    epsilon_cutoff: float = Field(0.0, ge=0, lt=1, description="least probability of a token; 0: off")
    repetition_penalty: float = Field(
        1.0, gt=0, description="above 1, earlier tokens of the caption become less likely; 1: off"
    )
    min_tokens: int = Field(5, ge=0, description="shortest caption in tokens")
    max_tokens: int = Field(30, gt=2, description="longest caption in tokens")
    no_repeat_ngram: int = Field(3, ge=0, description="no n-gram of this length comes twice in a caption; 0: off")
    static_cache: bool = Field(
        False, description="keep decoder keys and values in tensors of a fixed shape, so that GPUs run compiled code"
    )


class BeamConfig(Settings):
    """The search for captions beside sampling: beam search, diverse beam search or contrastive search."""

    beams: int = Field(4, gt=0, description="number of beams; 1: greedy search")
    groups: int = Field(
        1, gt=0, description="groups of beams; above 1: diverse beam search (arXiv 1610.02424), a caption of each group"
    )
    diversity_penalty: float = Field(
        0.5, ge=0, description="cost of a token for each beam of earlier groups that takes it at the same step"
    )
    penalty_alpha: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="above 0: contrastive search (arXiv 2202.06417) with this weight; takes 1 beam",
    )
    top_k: int = Field(4, gt=1, description="number of tokens that contrastive search tries at a step")
    min_tokens: int = Field(5, ge=0, description="shortest caption in tokens")
    max_tokens: int = Field(50, gt=2, description="longest caption in tokens")
    no_repeat_ngram: int = Field(3, ge=0, description="no n-gram of this length comes twice in a caption; 0: off")

    @model_validator(mode="after")
    def _one_kind_of_search(self) -> BeamConfig:
        if self.beams % self.groups:
            raise ValueError(f"groups: {self.groups} does not divide beams ({self.beams})")
        if self.penalty_alpha and self.beams > 1:
            raise ValueError(f"penalty_alpha: contrastive search needs beams: 1, found {self.beams}")
        for name, used, needed in (("diversity_penalty", self.groups > 1, "groups above 1"),
                                   ("top_k", self.penalty_alpha > 0, "penalty_alpha above 0")):  # fmt: skip
            if not used and getattr(self, name) != BeamConfig.model_fields[name].default:
                raise ValueError(f"{name} has no effect without {needed}")
        return self


class TokenEnsembleConfig(Settings):
    """Captioners with the same tokenizer that choose every token together.

    Their candidates are added to those of each captioner alone.
    """

    members: list[str] = Field(min_length=2, description="names of captioners")
    average: Literal["log-probabilities", "probabilities"] = Field(
        "log-probabilities", description="what is averaged over the captioners"
    )
