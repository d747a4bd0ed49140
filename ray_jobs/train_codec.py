"""train_codec: train the small DAC that is shipped with the project, on the built-in corpus.

Example: enclap train-codec experiments/codec.yaml epochs=16 seed=1
"""

from __future__ import annotations

import ray

from models.console import say
from ray_jobs.experiment.codec_config import CodecExperiment
from ray_jobs.experiment.config import ConfigError
from ray_jobs.run.directory import commit, is_done
from ray_jobs.run.entry import run_command
from ray_jobs.training.codec_job import CodecJob
from ray_jobs.training.faults import reason
from ray_jobs.training.job import TrainingRequest
from ray_jobs.training.trainer import collect_progress, start_training, wait_and_say


class CodecFailedError(RuntimeError):
    """The codec is not trained; the message says why."""


def run(config: CodecExperiment) -> None:
    """Train a codec, or resume its training, and write codec.safetensors, codec.json and metrics.json.

    Raises:
        ConfigError: if the cluster has fewer CPUs than the training needs.
        CodecFailedError: if training failed.
    """
    job = CodecJob.of(config)
    if is_done(job.output, job.inputs):
        say(f"train-codec: {job.output} is done already")
        return
    cpus = ray.cluster_resources().get("CPU", 0.0)
    if cpus < config.threads:
        raise ConfigError(f"threads: found {config.threads}, the cluster has {cpus:g}")
    progress = collect_progress()
    training = start_training(TrainingRequest(job, commit(), progress), job.output / "checkpoints")
    while not wait_and_say([training], progress):
        pass
    try:
        ray.get(training)
    except ray.exceptions.RayError as error:
        raise CodecFailedError(f"the codec is not trained: {reason(error)}; the same command resumes it") from error
    say(f"train-codec: {job.output}", style="green")


if __name__ == "__main__":
    run_command("train-codec")
