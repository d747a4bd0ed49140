"""Define the schema of `members` in an experiment file."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from models.hub import AUDIO_MODEL, TEXT_MODEL
from models.settings import CaptionerSettings, FluencyDetectorConfig, LogMelConfig, RetrieverSettings, Settings
from ray_jobs.experiment.distillation_config import CaptionerDistillation, RetrieverDistillation
from ray_jobs.experiment.training_config import Resources, Training


class Member(Settings):
    """The settings that all kinds of members share, and what else is particular to a kind.

    `task` is the module and class of its training, loaded by name because it brings heavy imports. `paths` are its
    settings that are paths, by dotted key, each with the function that reads it, or only looks at it where `mapped` is
    true, loaded by name, too; `paths_or_names` those that are the directory or hub id of a model, each with the parts
    that it is loaded from (`models.hub.PARTS`). `shards` is set where `training.parallel: fsdp` can divide its model,
    `reads_codes` where it depends on the codec.
    """

    task: ClassVar[str]
    paths: ClassVar[dict[str, str]] = {}
    paths_or_names: ClassVar[dict[str, tuple[str, ...]]] = {}
    shards: ClassVar[bool] = False
    reads_codes: ClassVar[bool] = False

    corpora: list[str] | dict[str, Annotated[float, Field(ge=0)]] = Field(
        default=[],
        description="names of the corpora to train on, every clip once per epoch; or each corpus's share of an epoch; "
        "if empty, all corpora",
    )
    init_from: str | None = Field(None, description="name of another member whose weights to start from")
    training: Training | None
    resources: Resources = Resources()

    @property
    def epochs(self) -> int:
        """Return the epochs of its training; 0 for published weights that are used as they are."""
        return self.training.last_epoch if self.training else 0

    def edges(self) -> list[str]:
        """Return the names of members that must be trained first."""
        return list(
            dict.fromkeys([*self.retrievers(), *([self.init_from] if self.init_from else []), *self.teachers()])
        )

    def retrievers(self) -> list[str]:
        """Return the names of the retrievers whose audio embeddings it reads; by default none."""
        return []

    def teachers(self) -> list[str]:
        """Return the names of the members that it is distilled from; by default none."""
        return []

    def check_features(self, log_mel: LogMelConfig) -> None:
        """Check that it can read features of this front end; by default any.

        Raises:
            ValueError: naming what does not fit.
        """
        return

    def weight_identity(self) -> dict[str, str]:
        """Return, by key, what the weights belong to: members joined by `init_from` must agree on it."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _pieces_are_of_captioners(self) -> Member:
        if self.training and self.training.parallel == "fsdp":
            if not self.shards:
                raise ValueError("training.parallel: fsdp is for captioners; leave it out")
            if self.resources.workers == 1:
                raise ValueError("training.parallel: fsdp needs resources.workers above 1")
        return self

    @model_validator(mode="after")
    def _batch_divides_evenly(self) -> Member:
        if not self.training:
            return self
        size, accumulate = self.training.batch_size, self.training.accumulate
        for workers in self.resources.worker_range:
            if size % (accumulate * workers):
                raise ValueError(
                    f"training.batch_size: {size} is not a multiple of resources.workers ({workers}) times "
                    f"training.accumulate ({accumulate})"
                )
        return self


Distillation = TypeVar("Distillation", bound=Settings)


def _of_teachers(teachers: list[str], given: Distillation | None, kind: type[Distillation]) -> Distillation | None:
    """Return the settings of a distillation, the defaults where none are given; None without teachers."""
    if given and not teachers:
        raise ValueError("distillation has no effect without distil_from")
    return given or kind() if teachers else None


class Student(Member):
    """The settings of kinds that can be distilled from other members of their kind."""

    distil_from: list[str] = Field(
        default=[],
        description="names of trained members of the same kind whose outputs it learns from, beside its own loss "
        "(distillation)",
    )

    def teachers(self) -> list[str]:
        return self.distil_from

    @model_validator(mode="after")
    def _teachers_differ(self) -> Student:
        if len(set(self.distil_from)) < len(self.distil_from):
            raise ValueError(f"distil_from: {', '.join(self.distil_from)} name one twice")
        return self


class RetrieverMember(Student, RetrieverSettings):
    """A retriever: audio and text in one space."""

    task = "ray_jobs.training.tasks.retriever:RetrieverTask"
    paths: ClassVar = {"audio_encoder.checkpoint": "models.encoders.audioset_checkpoint:read_audioset_weights"}
    paths_or_names: ClassVar = {"text_encoder.name": TEXT_MODEL, "audio_encoder.transformer": AUDIO_MODEL}

    kind: Literal["retriever"]
    training: Training
    gradient_cache: int | None = Field(
        None,
        gt=0,
        description="pairs of a worker's batch whose activations are held at the same time (GradCache): a batch of any "
        "size fits, at the price of a second forward pass; if none, all pairs",
    )
    doubtful_pairs: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="share of each split's pairs of clip and caption, those that agree least, that are listed in "
        "`doubtful_pairs.parquet` after the training; that takes one pass of the text encoder over the captions, and "
        "of the audio encoder over training clips whose embeddings no captioner reads. 0: none",
    )

    distillation: RetrieverDistillation | None = Field(
        None, description="how it learns from `distil_from`; if none, by the defaults"
    )

    @model_validator(mode="after")
    def _distillation_has_teachers(self) -> RetrieverMember:
        self.distillation = _of_teachers(self.distil_from, self.distillation, RetrieverDistillation)
        if self.distil_from and self.mixup_alpha:
            raise ValueError("mixup_alpha: the teachers in distil_from do not know mixed clips; set it to 0")
        return self

    @model_validator(mode="after")
    def _pairs_of_a_step_stay_together(self) -> RetrieverMember:
        if self.training.accumulate > 1:
            raise ValueError(
                "training.accumulate: the loss of a retriever needs all pairs of a step together; use gradient_cache"
            )
        return self

    @model_validator(mode="after")
    def _weights_from_scratch_are_trained(self) -> RetrieverMember:
        encoder = self.audio_encoder
        has_weights = encoder.transformer or encoder.checkpoint or encoder.pretrained or self.init_from
        if (encoder.finetuning != "full" or encoder.frozen_layers) and not has_weights:
            raise ValueError(
                f"audio_encoder: finetuning {encoder.finetuning!r} with frozen_layers {encoder.frozen_layers} leaves "
                f"random weights of {encoder.backbone!r} untrained; set pretrained, checkpoint or init_from"
            )
        return self

    def weight_identity(self) -> dict[str, str]:
        return {"audio_encoder.backbone": self.audio_encoder.backbone, "text_encoder.name": self.text_encoder.name}

    def check_features(self, log_mel: LogMelConfig) -> None:
        self.audio_encoder.check_front_end(log_mel)


LOSS = "caption_loss"  # the one monitor that needs no captions
Monitor = Literal[
    "caption_loss", "bleu_4", "rouge_l", "meteor", "cider_d", "spice", "spider", "spider_fl", "sbert_sim", "fense"
]


class CaptionerMember(Student, CaptionerSettings):
    """A captioner: a BART that reads codec codes and a retriever's audio embedding."""

    task = "ray_jobs.training.tasks.captioner:CaptionerTask"
    paths: ClassVar = {"checkpoint": "models.captioner.enclap_checkpoint:check_enclap_checkpoint"}
    paths_or_names: ClassVar = {"language_model": TEXT_MODEL}
    shards = True
    reads_codes = True

    kind: Literal["captioner"]
    training: Training
    audio_embedding: str | list[str] = Field(
        description="name of the retriever whose audio embedding it reads; or of several, whose embeddings stand side "
        "by side; `[]`: it reads codes alone"
    )
    captions_per_clip: int = Field(
        1, gt=0, description="captions per clip in a training step, computed from one pass of the encoder"
    )
    monitor: Monitor = Field(
        "caption_loss",
        description="validation value that chooses the epoch; all but the first are of generated captions, and some "
        "need Java or model files",
    )
    fallback_monitor: Monitor | None = Field(
        None,
        description="the value in its place where Java or model files of `monitor` are missing; if none, an error",
    )
    validation_clips: int | None = Field(
        None, gt=1, description="number of validation clips that are captioned for `monitor`; if none, all"
    )
    validation_beams: int = Field(1, gt=0, description="beams of these captions; 1: greedy")
    watched_clips: int = Field(
        32,
        ge=0,
        description="number of validation clips that are captioned greedily after every epoch to see whether captions "
        "collapse, where `monitor` captions none; 0: none",
    )

    distillation: CaptionerDistillation | None = Field(
        None, description="how it learns from `distil_from`; if none, by the defaults"
    )

    def weight_identity(self) -> dict[str, str]:
        return {"language_model": self.language_model}

    @model_validator(mode="after")
    def _distillation_has_teachers(self) -> CaptionerMember:
        self.distillation = _of_teachers(self.distil_from, self.distillation, CaptionerDistillation)
        return self

    @model_validator(mode="after")
    def _all_layers_learn_alike(self) -> CaptionerMember:
        if self.training.layer_decay < 1:
            raise ValueError("training.layer_decay: a captioner has none of the encoders that it is for; leave it out")
        return self

    @model_validator(mode="after")
    def _captions_are_generated_for_a_reason(self) -> CaptionerMember:
        if self.monitor == LOSS and (self.validation_clips or self.validation_beams > 1):
            raise ValueError("validation_clips and validation_beams are for another monitor than caption_loss")
        return self

    def available_monitor(self) -> str:
        """Return `monitor`, or `fallback_monitor` where this machine can compute that alone."""
        from models.metrics.captions import missing_parts

        fallback = self.fallback_monitor
        if fallback is None or not missing_parts(self.monitor) or missing_parts(fallback):
            return self.monitor
        return fallback

    def retrievers(self) -> list[str]:
        """Return the names of retrievers in `audio_embedding`."""
        return [self.audio_embedding] if isinstance(self.audio_embedding, str) else self.audio_embedding


class FluencyDetectorMember(Member, FluencyDetectorConfig):
    """A fluency-error detector, trained on captions and damaged captions, or FENSE's published one."""

    task = "ray_jobs.training.tasks.fluency:FluencyTask"
    paths: ClassVar = {"checkpoint": "models.fluency.fense_checkpoint:read_fense_checkpoint"}
    paths_or_names: ClassVar = {"text_encoder.name": TEXT_MODEL}

    kind: Literal["fluency-detector"]
    training: Training | None = Field(
        None,
        description="the settings of its training, with AdamW; required unless there is a `checkpoint`, which is not "
        "trained further",
    )

    @model_validator(mode="after")
    def _is_trained_or_published(self) -> FluencyDetectorMember:
        if not self.checkpoint and not self.training:
            raise ValueError("training: missing; expected it, or `checkpoint` for FENSE's published detector")
        for field in ("training", "corpora", "init_from"):
            if self.checkpoint and getattr(self, field):
                raise ValueError(
                    f"{field}: has no effect on the published detector of `checkpoint`, which is used as it is; leave "
                    f"{field} out, or checkpoint to train a detector"
                )
        return self

    def weight_identity(self) -> dict[str, str]:
        return {"text_encoder.name": self.text_encoder.name}


AnyMember = Annotated[RetrieverMember | CaptionerMember | FluencyDetectorMember, Field(discriminator="kind")]
