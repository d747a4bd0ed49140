"""Describe the training of a codec."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.fingerprint import fingerprint
from ray_jobs.experiment.codec_config import CodecExperiment
from ray_jobs.experiment.training_config import Resources, Training
from ray_jobs.training.job import TrainingJob

FORMAT = 2  # of the checkpoints; a training with others starts anew


@dataclass(frozen=True, kw_only=True)
class CodecJob(TrainingJob):
    """The training of a DAC on one worker."""

    config: CodecExperiment

    @classmethod
    def of(cls, config: CodecExperiment) -> CodecJob:
        """Return the training that a codec's file describes."""
        output = Path(config.storage_path).resolve() / config.name
        return cls(
            name=config.name,
            seed=config.seed,
            inputs=fingerprint(config, FORMAT),
            output=output,
            experiment=config.name,
            config=config,
        )

    @property
    def kind(self) -> str:
        return "codec"

    @property
    def task(self) -> str:
        return "ray_jobs.training.tasks.codec:CodecTask"

    @property
    def training(self) -> Training:
        return self.config.convert(Training)

    @property
    def resources(self) -> Resources:
        return Resources(cpus_per_worker=self.config.threads)

    @property
    def run(self) -> Path:
        return self.output

    def settings(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json", exclude={"name", "storage_path"})

    def key(self, field: str) -> str:
        return field.removeprefix("training.")
