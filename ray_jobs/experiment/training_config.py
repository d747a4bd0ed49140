"""Define the schema of a member's `training` and `resources` in an experiment file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.settings import Settings


class Resources(Settings):
    """The resources of a member's training: data-parallel workers, and what each of them takes."""

    workers: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        1,
        description="number of workers; or [least, most] for as many as the cluster has room for, checked again every "
        "minute",
    )
    cpus_per_worker: float = Field(1, gt=0, description="CPU cores per worker; may be a fraction")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs per worker; may be a fraction")
    accelerator_type: str | None = Field(
        None, description="only on nodes with this accelerator, by Ray's name, such as H100; on any if none"
    )
    custom: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="amount per worker of each of the cluster's own resources (`ray start --resources`)"
    )
    retries: int = Field(
        2,
        ge=0,
        description="restarts from the last checkpoint after failures, but for those that a restart would meet again",
    )
    checkpoint_steps: int | None = Field(
        None, gt=0, description="steps between checkpoints within an epoch; if none, only at the end of an epoch"
    )
    hang_timeout_s: float | None = Field(
        None,
        gt=0,
        description="kill a worker whose step takes longer, in seconds, and count it as failed; if none, wait",
    )

    reader_threads: int = Field(2, gt=0, description="threads of a worker that read batches ahead of the training step")
    read_ahead: int = Field(3, gt=0, description="steps whose batches a worker reads ahead")
    feature_cache_gb: float | None = Field(
        None,
        gt=0,
        description="for a run in an object store: gigabytes of a node's disk that training features may take; those "
        "not in use are removed and fetched again. If none, all that were fetched stay",
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
    """The settings of a member's training, with AdamW."""

    epochs: int = Field(gt=0, description="passes over the training clips")
    stop_after: int | None = Field(
        None,
        gt=0,
        description="end after this many of the `epochs`, over all of which the learning rate runs; if none, after the "
        "last",
    )
    batch_size: int = Field(64, gt=1, description="clips per optimizer step, whatever the number of workers")
    shuffle_clips: int = Field(
        4096,
        gt=0,
        description="clips among which an epoch is shuffled freely; its files are in random order, and those of as "
        "many clips are read at a time",
    )
    accumulate: int = Field(1, gt=0, description="parts that a batch is computed in, one by one, to fit memory")
    learning_rate: float = Field(gt=0, description="highest learning rate of the schedule")
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor of the learning rate from each layer of an encoder to the layer below; 1: off",
    )
    schedule: Literal["cosine", "inverse-sqrt", "constant"] = Field(
        "cosine", description="course of the learning rate after the warm-up; inverse-sqrt is EnCLAP's"
    )
    warmup_steps: int = Field(0, ge=0, description="steps in which the learning rate rises to its highest value")
    time_scale: int | None = Field(
        None,
        gt=0,
        description="inverse-sqrt: time scale in steps; after three times as many the rate is half. If none, "
        "`warmup_steps`",
    )
    weight_decay: float = Field(0.01, ge=0, description="weight decay of matrices; biases and norms have none")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient; longer ones are scaled down to it")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16: autocast where it is safe")
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="each of several workers holds the whole model (ddp), or a shard of its weights and of the "
        "optimizer's state (fsdp; captioners only)",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay per step of the moving average of the weights, which then is validated and kept; 0: off",
    )
    keep_epochs: int = Field(
        1, gt=0, description="number of epochs kept: the best as the member, the next best in its `epochs/`"
    )
    patience: int | None = Field(
        None, gt=0, description="stop after this many epochs without a better validation value; if none, never"
    )

    @property
    def last_epoch(self) -> int:
        """Return the number of the epoch after which the training ends at the latest."""
        return min(self.epochs, self.stop_after or self.epochs)

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
