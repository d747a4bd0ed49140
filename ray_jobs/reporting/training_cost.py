"""Lay out what the trainings of a run took: device hours, and an estimate of their energy."""

from __future__ import annotations

from dataclasses import dataclass

from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import Member
from ray_jobs.results.member import MemberMetrics
from ray_jobs.run.directory import RunDirectory

# Most power in watts, as NVIDIA's data sheets have it; the first name that a GPU's contains counts.
GPU_WATTS = {"H100 PCIe": 350, "H100 NVL": 400, "H100": 700, "H200": 700, "GH200": 700, "B200": 1000, "A100": 400,
             "L40S": 350, "L4": 72, "A10G": 300, "A10": 150}  # fmt: skip
CORE_WATTS = 10  # of a CPU; a server's processor has 200 to 400 W for 24 to 64 cores
HOUR_S = 3600


@dataclass(frozen=True)
class TrainingCost:
    """What the training of a member took; None for what is not known."""

    member: str
    device: str | None
    devices: float  # GPUs, or cores of CPUs, over all workers
    device_hours: float
    watt_hours: float | None


def training_costs(experiment: Experiment, directory: RunDirectory) -> list[TrainingCost]:
    """Return the cost of each member that was trained, validation left out."""
    found = [_cost(member, MemberMetrics.read(directory.member(name))) for name, member in experiment.members.items()]
    return [cost for cost in found if cost.device_hours]


def _cost(member: Member, metrics: MemberMetrics) -> TrainingCost:
    asked, device = member.resources, metrics.device
    devices = max(asked.worker_range) * (asked.gpus_per_worker or asked.cpus_per_worker)
    hours = devices * metrics.seconds / HOUR_S
    watts = _watts(device)
    return TrainingCost(metrics.member, device, devices, hours, None if watts is None else hours * watts)


def _watts(device: str | None) -> float | None:
    if device is None:  # earlier versions did not record it
        return None
    return CORE_WATTS if device == "cpu" else next((watts for name, watts in GPU_WATTS.items() if name in device), None)
