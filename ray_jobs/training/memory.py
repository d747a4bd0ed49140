"""Estimate the memory of a member's training state from its settings, on a layout of the model without weights."""

from __future__ import annotations

from pkgutil import resolve_name

from torch import nn

from models.errors import InputError
from ray_jobs.experiment.config import Experiment
from ray_jobs.training.tasks.member import MemberTask

FLOAT32 = 4  # bytes; autocast leaves weights and optimizer in it


def training_state_bytes(experiment: Experiment, name: str) -> int | None:
    """Return the bytes a worker keeps of weights, their moving average, gradients and AdamW's two moments.

    Activations are not counted. Tokenizers that are still to be trained count with all of `vocab_size`.

    Returns:
        None if the sizes are those of a checkpoint or codec that is not on this disk.
    """
    try:
        model = layout(experiment, name)
    except (InputError, OSError):
        return None
    member = experiment.members[name]
    weights = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    copies = 2 if member.training.ema_decay else 1
    gradients = 2 if member.resources.worker_range[-1] > 1 else 1  # DistributedDataParallel sends them from buckets
    return FLOAT32 * (copies * weights + (gradients + 2) * trained)


def layout(experiment: Experiment, name: str) -> nn.Module:
    """Lay out the member's model as its task does (`MemberTask.layout`)."""
    member = experiment.members[name]
    task: type[MemberTask] = resolve_name(member.task)
    return task.layout(experiment, member)
