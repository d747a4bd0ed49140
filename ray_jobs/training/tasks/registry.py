"""Find the task of a training by its kind."""

from __future__ import annotations

from pkgutil import resolve_name

from ray_jobs.training.job import TrainingJob
from ray_jobs.training.tasks.base import Task

# Module of this package and class, by the kind of the training. Loaded by name: each brings its own heavy imports.
TASKS = {
    "retriever": "retriever:RetrieverTask",
    "captioner": "captioner:CaptionerTask",
    "fluency-detector": "fluency:FluencyTask",
    "codec": "codec:CodecTask",
}


def make_task(job: TrainingJob) -> Task:
    """Return the task of the job's kind."""
    task: Task = resolve_name(f"{__package__}.{TASKS[job.kind]}")(job)
    return task
