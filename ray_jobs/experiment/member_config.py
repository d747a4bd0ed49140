"""Define the schema of `members` in an experiment file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.settings import CaptionerSettings, FluencyDetectorConfig, RetrieverSettings, Settings


class Resources(Settings):
    """Resources of one member: its data-parallel workers, and what each of them takes."""

    workers: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        1,
        description="number of data-parallel workers; or [least, most]: as many as the cluster has room for, reviewed "
        "every minute",
    )
    cpus_per_worker: float = Field(1, gt=0, description="CPUs of each worker")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs of each worker, or a share of one")
    accelerator_type: str | None = Field(
        None, description="only nodes with this accelerator are used, such as H100 (Ray's names); any when left out"
    )
    custom: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="amount of each custom resource (`ray start --resources`) that a worker takes"
    )
    retries: int = Field(2, ge=0, description="how often a failed member restarts from its last checkpoint")
    checkpoint_steps: int | None = Field(
        None, gt=0, description="steps between checkpoints within an epoch; only at its end when left out"
    )
    hang_timeout_s: float | None = Field(
        None,
        gt=0,
        description="seconds that a step may take: a worker that needs longer is killed and counts as failed; no limit "
        "when left out",
    )

    @property
    def min_workers(self) -> int:
        """Return the number of workers without which the member does not start."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def worker_range(self) -> range:
        """Return the range of numbers of workers that the member may run on."""
        most = self.workers if isinstance(self.workers, int) else self.workers[1]
        return range(self.min_workers, most + 1)

    def per_worker(self) -> dict[str, float]:
        """Return what one worker takes, by Ray's names of resources."""
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
                    f"custom: {name!r} is not a custom resource; use cpus_per_worker, gpus_per_worker, accelerator_type"
                )
        if self.accelerator_type and not self.gpus_per_worker:
            raise ValueError("accelerator_type: needs gpus_per_worker above 0")
        return self


class Training(Settings):
    """How a member is trained."""

    epochs: int = Field(gt=0, description="number of epochs at most")
    batch_size: int = Field(64, gt=1, description="examples in one optimizer step, over all workers together")
    accumulate: int = Field(
        1, gt=0, description="number of parts in which a batch is computed, one after the other, to save memory"
    )
    learning_rate: float = Field(gt=0, description="peak learning rate of AdamW, reached after the warm-up")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor of the learning rate from each encoder layer to the one below it; 1: off"
    )
    schedule: Literal["cosine", "inverse-sqrt", "constant"] = Field(
        "cosine", description="how the learning rate falls after the warm-up; cosine falls to 0 at the last step"
    )
    warmup_steps: int = Field(0, ge=0, description="steps in which the learning rate rises linearly to its peak")
    time_scale: int | None = Field(
        None,
        gt=0,
        description="inverse-sqrt: three times this number of steps after the warm-up the learning rate is halved; "
        "warmup_steps when left out",
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay, of matrices only")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient; larger ones are scaled down")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="number format of forward and backward pass (autocast); weights and optimizer stay in float32",
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="ddp: every worker holds the whole model; fsdp (captioners only): every worker holds a piece of "
        "the weights, gradients and optimizer state",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of an exponential moving average of the weights, which is then validated and kept in their "
        "place; 0: off",
    )
    keep_epochs: int = Field(1, gt=0, description="number of best epochs kept; the best one is the member")
    patience: int | None = Field(
        None, gt=0, description="epochs without a better validation value after which training stops; off when left out"
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
    """Settings that all kinds of members have in common."""

    corpora: list[str] | dict[str, Annotated[float, Field(ge=0)]] = Field(
        default=[],
        description="names of corpora to train on, every clip once an epoch; or a mapping of names to their shares of "
        "an epoch; all corpora when left out",
    )
    init_from: str | None = Field(None, description="member whose weights training starts from; none when left out")
    training: Training = Field(description="how the member is trained")
    resources: Resources = Field(Resources(), description="what the member's training takes of the cluster")

    def edges(self) -> list[str]:
        """Return the names of members that must be trained first."""
        return [self.init_from] if self.init_from else []

    def weight_identity(self) -> dict[str, str]:
        """Return, by key, what the weights belong to: members joined by `init_from` must agree on it."""
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
                    f"training.batch_size: {size} is not a multiple of resources.workers ({workers}) times "
                    f"training.accumulate ({accumulate})"
                )
        return self


class RetrieverMember(Member, RetrieverSettings):
    """A retriever (models/retriever/model.py)."""

    kind: Literal["retriever"] = Field(description="retriever")
    gradient_cache: int | None = Field(
        None,
        gt=0,
        description="pairs of a worker's batch whose activations are in memory at the same time (GradCache): any batch "
        "size fits, for the price of a second forward pass; all pairs when left out",
    )

    @model_validator(mode="after")
    def _pairs_of_a_step_stay_together(self) -> RetrieverMember:
        if self.training.accumulate > 1:
            raise ValueError(
                "training.accumulate: the loss of a retriever needs all pairs of a step together; use gradient_cache"
            )
        return self

    def weight_identity(self) -> dict[str, str]:
        return {"audio_encoder.backbone": self.audio_encoder.backbone, "text_encoder.name": self.text_encoder.name}


class CaptionerMember(Member, CaptionerSettings):
    """A captioner (models/captioner/model.py), which reads the audio embedding of one or more retrievers."""

    kind: Literal["captioner"] = Field(description="captioner")
    audio_embedding: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="name of the retriever whose audio embedding is read; or several, whose embeddings are concatenated"
    )
    captions_per_clip: int = Field(
        1, gt=0, description="captions of each clip that a step trains on, with one pass of the encoder"
    )
    monitor: Literal[
        "caption_loss", "bleu_4", "rouge_l", "meteor", "cider_d", "spice", "spider", "spider_fl", "sbert_sim", "fense"
    ] = Field(
        "caption_loss",
        description="validation value by which the best epoch is chosen; all but the first are metrics of generated "
        "captions, some of which need Java or model files",
    )
    validation_clips: int | None = Field(
        None, gt=1, description="number of validation clips that captions are generated for; all when left out"
    )
    validation_beams: int = Field(1, gt=0, description="beams with which these captions are generated; 1: greedy")

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
        """Return the names of retrievers in `audio_embedding`."""
        return [self.audio_embedding] if isinstance(self.audio_embedding, str) else self.audio_embedding

    def edges(self) -> list[str]:
        return [*self.retrievers(), *super().edges()]


class FluencyDetectorMember(Member, FluencyDetectorConfig):
    """A fluency-error detector (models/fluency/detector.py), trained on damaged captions."""

    kind: Literal["fluency-detector"] = Field(description="fluency-detector")

    def weight_identity(self) -> dict[str, str]:
        return {"text_encoder.name": self.text_encoder.name}


AnyMember = Annotated[RetrieverMember | CaptionerMember | FluencyDetectorMember, Field(discriminator="kind")]
