"""Map each kind of member to its training task."""

from __future__ import annotations

from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.tasks.base import Task
from ray_jobs.training.tasks.captioner import CaptionerTask
from ray_jobs.training.tasks.fluency import FluencyTask
from ray_jobs.training.tasks.retriever import RetrieverTask


def make_task(job: MemberJob) -> Task:
    """The task of the member's kind."""
    kinds: dict[str, type[Task]] = {
        "retriever": RetrieverTask,
        "captioner": CaptionerTask,
        "fluency-detector": FluencyTask,
    }
    return kinds[job.member.kind](job)
