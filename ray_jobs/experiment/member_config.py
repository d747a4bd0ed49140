"""What an experiment says of its members: `members` in experiments/*.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.settings import CaptionerSettings, FluencyDetectorConfig, RetrieverSettings, Settings


class Resources(Settings):
    """Of one member: `workers` in data parallel, each with these."""

    workers: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        1, description="or [least, most]: as many as the cluster has room for, looked at again every minute"
    )
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    accelerator_type: str | None = Field(None, description="on nodes with this one alone, such as H100 (Ray's names)")
    custom: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="of each of the cluster's own resources (`ray start --resources`) a worker takes"
    )
    retries: int = Field(2, ge=0, description="restarts from the last checkpoint after a failure")
    checkpoint_steps: int | None = Field(
        None, gt=0, description="steps from one checkpoint to the next within an epoch; at its end alone when left out"
    )
    hang_timeout_s: float | None = Field(
        None,
        gt=0,
        description="a worker whose step takes longer is killed, and counts as failed; waits for ever when left out",
    )

    @property
    def min_workers(self) -> int:
        """Workers without which the member does not start."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def worker_range(self) -> range:
        """Numbers of workers that it may come to run on."""
        most = self.workers if isinstance(self.workers, int) else self.workers[1]
        return range(self.min_workers, most + 1)

    def per_worker(self) -> dict[str, float]:
        """What a worker takes, by Ray's names."""
        kind = f"accelerator_type:{self.accelerator_type}"
        wanted = {"CPU": self.cpus_per_worker, "GPU": self.gpus_per_worker, **self.custom}
        # Ray puts 1 of the type on a node, whatever the number of its accelerators, and Train takes a thousandth.
        return {k: v for k, v in wanted.items() if v} | ({kind: 0.001} if self.accelerator_type else {})

    @model_validator(mode="after")
    def _resources_are_said_once(self) -> Resources:
        if not self.worker_range:
            raise ValueError(f"workers: found {list(self.workers)}, expected [least, most]")  # type: ignore[arg-type]
        for name in self.custom:
            if name in ("CPU", "GPU", "memory", "object_store_memory") or name.startswith("accelerator_type:"):
                raise ValueError(
                    f"custom: {name!r} is no custom resource; use cpus_per_worker, gpus_per_worker, accelerator_type"
                )
        if self.accelerator_type and not self.gpus_per_worker:
            raise ValueError("accelerator_type: needs gpus_per_worker above 0")
        return self


class Training(Settings):
    """How a member is trained. `batch_size` is that of a step, whatever the number of workers."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(64, gt=1)
    accumulate: int = Field(1, gt=0, description="parts that a batch is computed in, one by one, to fit memory")
    learning_rate: float = Field(gt=0)
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="of the learning rate from each layer of an encoder to the one below; 1: off"
    )
    schedule: Literal["cosine", "inverse-sqrt", "constant"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    time_scale: int | None = Field(
        None, gt=0, description="steps of inverse-sqrt: three times as many halve the rate; warmup_steps when left out"
    )
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="several workers each hold a whole captioner, or a piece of it and of the optimizer's state"
    )
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="of the moving average of the weights that is validated and kept; 0: the weights"
    )
    keep_epochs: int = Field(1, gt=0, description="the best so many epochs are kept, the best of all as the member")
    patience: int | None = Field(
        None, gt=0, description="stop behind so many epochs without a better validation value; never when left out"
    )

    @model_validator(mode="after")
    def _inverse_sqrt_has_a_scale(self) -> Training:
        if self.schedule == "inverse-sqrt" and not (self.time_scale or self.warmup_steps):
            raise ValueError("schedule: inverse-sqrt needs time_scale or warmup_steps above 0")
        if self.schedule != "inverse-sqrt" and self.time_scale:
            raise ValueError(f"time_scale: schedule {self.schedule!r} has none; it is for inverse-sqrt")
        return self

    @model_validator(mode="after")
    def _an_average_is_of_whole_weights(self) -> Training:
        if self.parallel == "fsdp" and self.ema_decay:
            raise ValueError("ema_decay: there is no moving average of weights in pieces (parallel: fsdp)")
        return self


class Member(Settings):
    """Common to all kinds of members."""

    corpora: list[str] | dict[str, Annotated[float, Field(ge=0)]] = Field(
        default=[], description="to train on, every clip once an epoch; or shares of an epoch; all when left out"
    )
    init_from: str | None = Field(None, description="start from this member's weights")
    training: Training
    resources: Resources = Resources()

    def edges(self) -> list[str]:
        """Members that must be done first."""
        return [self.init_from] if self.init_from else []

    def weight_identity(self) -> dict[str, str]:
        """By key, what the weights are of: members joined by init_from must agree on it."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _pieces_are_of_captioners(self) -> Member:
        if self.training.parallel == "fsdp":
            if not isinstance(self, CaptionerMember):
                raise ValueError("training.parallel: fsdp is for captioners; leave it out")
            if self.resources.workers == 1:
                raise ValueError("training.parallel: fsdp needs resources.workers above 1")
        return self

    @model_validator(mode="after")
    def _batch_divides_evenly(self) -> Member:
        size, accumulate = self.training.batch_size, self.training.accumulate
        for workers in self.resources.worker_range:
            if size % (accumulate * workers):
                raise ValueError(
                    f"training.batch_size: {size} is no multiple of resources.workers ({workers}) times "
                    f"training.accumulate ({accumulate})"
                )
        return self


class RetrieverMember(Member, RetrieverSettings):
    """A retriever (models/retriever/model.py)."""

    kind: Literal["retriever"]
    gradient_cache: int | None = Field(
        None,
        gt=0,
        description="pairs of a worker's batch whose activations are held at once (GradCache): memory for a batch of "
        "any size, for the price of a second forward pass",
    )

    @model_validator(mode="after")
    def _pairs_of_a_step_stay_together(self) -> RetrieverMember:
        if self.training.accumulate > 1:
            raise ValueError(
                "training.accumulate: the loss of a retriever needs all pairs of a step at once; use gradient_cache"
            )
        return self

    def weight_identity(self) -> dict[str, str]:
        return {"audio_encoder.backbone": self.audio_encoder.backbone, "text_encoder.name": self.text_encoder.name}


class CaptionerMember(Member, CaptionerSettings):
    """A captioner (models/captioner/model.py) that reads the named retriever's audio_embedding."""

    kind: Literal["captioner"]
    audio_embedding: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="a retriever; or several, whose embeddings stand side by side"
    )
    captions_per_clip: int = Field(1, gt=0, description="captions a step and clip, from one encoder pass")
    monitor: Literal[
        "caption_loss", "bleu_4", "rouge_l", "meteor", "cider_d", "spice", "spider", "spider_fl", "sbert_sim", "fense"
    ] = Field(
        "caption_loss",
        description="validation value that chooses the epoch; all but the first are of generated captions, and some "
        "need Java or model files (README)",
    )
    validation_clips: int | None = Field(None, gt=1, description="captioned for monitor; all when left out")
    validation_beams: int = Field(1, gt=0, description="of these captions; 1: greedy")

    def weight_identity(self) -> dict[str, str]:
        return {"language_model": self.language_model}

    @model_validator(mode="after")
    def _all_layers_learn_alike(self) -> CaptionerMember:
        if self.training.layer_decay < 1:
            raise ValueError("training.layer_decay: a captioner has none of the encoders that it is for; leave it out")
        return self

    @model_validator(mode="after")
    def _captions_are_generated_for_a_reason(self) -> CaptionerMember:
        if self.monitor == "caption_loss" and (self.validation_clips or self.validation_beams > 1):
            raise ValueError("validation_clips and validation_beams are for another monitor than caption_loss")
        return self

    def retrievers(self) -> list[str]:
        """The names in `audio_embedding`."""
        return [self.audio_embedding] if isinstance(self.audio_embedding, str) else self.audio_embedding

    def edges(self) -> list[str]:
        return [*self.retrievers(), *super().edges()]


class FluencyDetectorMember(Member, FluencyDetectorConfig):
    """A fluency-error detector (models/fluency/detector.py), trained on damaged captions."""

    kind: Literal["fluency-detector"]

    def weight_identity(self) -> dict[str, str]:
        return {"text_encoder.name": self.text_encoder.name}


AnyMember = Annotated[RetrieverMember | CaptionerMember | FluencyDetectorMember, Field(discriminator="kind")]
