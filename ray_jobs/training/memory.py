"""Estimate the memory of a member's training from its settings, on tensors without numbers.

The weights are laid out as the member's task does, and one forward pass is run on fake tensors: shapes alone. What it
saves for the backward pass is what a step needs beside weights, gradients and optimizer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pkgutil import resolve_name

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from models.errors import InputError
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import AnyMember
from ray_jobs.training.tasks.member import MemberTask

FLOAT32 = 4  # bytes; autocast leaves weights and optimizer in it
# GB of memory by Ray's names of accelerators, as the makers' data sheets have it; the least where there are several.
ACCELERATORS = {"B200": 180, "H200": 141, "GH200": 96, "H100": 80, "A100": 40, "A100-40G": 40, "A100-80G": 80,
                "L40S": 48, "A10G": 24, "L4": 24, "T4": 16, "V100": 16}  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """Bytes that a worker of a member needs."""

    state: int  # weights, their moving average, gradients, AdamW's two moments; and the weights of teachers
    activations: int  # that a forward pass of the largest batch saves for the backward pass
    scratch: int  # of its temporary directory on disk, for checkpoints

    @property
    def total(self) -> int:
        """Return the memory of the device, without what libraries and allocator take."""
        return self.state + self.activations


def worker_memory(experiment: Experiment, name: str) -> Memory | None:
    """Return the memory that each worker of a member needs.

    Tokenizers that are still to be trained count with all of `vocab_size`.

    Returns:
        None if the sizes are those of a checkpoint or codec that is neither on this disk nor a published one.
    """
    member = experiment.members[name]
    try:
        model = layout(experiment, name)
        teachers = task_of(member).teacher_weights(experiment, member)
    except (InputError, OSError):
        return None
    weights = sum(p.numel() for p in model.parameters())
    if not member.training:  # loaded, measured and written
        return Memory(state=FLOAT32 * weights, activations=0, scratch=FLOAT32 * weights)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    copies = 2 if member.training.ema_decay else 1
    gradients = 2 if member.resources.worker_range[-1] > 1 else 1  # DistributedDataParallel sends them from buckets
    shards = member.resources.min_workers if member.training.parallel == "fsdp" else 1
    # the last epoch, the best ones and the one that replaces them, and AdamW's moments
    scratch = (copies + member.training.keep_epochs + 1) * weights + 2 * trained
    return Memory(
        state=FLOAT32 * (copies * weights + (gradients + 2) * trained) // shards + FLOAT32 * teachers,
        activations=activation_bytes(experiment, name, model),
        scratch=FLOAT32 * scratch,
    )


def layout(experiment: Experiment, name: str) -> nn.Module:
    """Lay out the member's model as its task does (`MemberTask.layout`)."""
    member = experiment.members[name]
    return task_of(member).layout(experiment, member)


def task_of(member: AnyMember) -> type[MemberTask]:
    """Return the class of a member's task."""
    task: type[MemberTask] = resolve_name(member.task)
    return task


def activation_bytes(experiment: Experiment, name: str, model: nn.Module) -> int:
    """Return the bytes of what a forward pass of a worker's largest batch saves, and of the backward pass's start.

    Args:
        model: as `layout` returns it, which is changed.
    """
    member, saved = experiment.members[name], dict[int, int]()
    assert member.training

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        _materialise(model.train())
        for module in model.modules():
            if hasattr(module, "layerdrop"):  # a draw decides, which shapes alone cannot make: all layers are counted
                module.training = False
        own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=member.training.precision == "bfloat16"),
        ):
            task_of(member).example_step(model, experiment, member)
        sizes = [size for storage, size in saved.items() if storage not in own]
        return sum(sizes) + 2 * max(sizes, default=0)  # and the gradient of the largest, with what computing it takes


def _materialise(model: nn.Module) -> None:
    """Replace meta tensors, tied ones by one, by tensors of the present mode."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_weight = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_weight else empty
                tensors[key] = made[id(tensor)]  # type: ignore[assignment]


def device_bytes(member: AnyMember) -> int | None:
    """Return the memory that each worker of a member has: of its accelerator, or of this machine without one.

    Returns:
        None for a GPU that neither `resources.accelerator_type` names nor this machine has.
    """
    resources = member.resources
    if not resources.gpus_per_worker:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if resources.accelerator_type in ACCELERATORS:
        return int(ACCELERATORS[resources.accelerator_type] * 1e9 * min(1, resources.gpus_per_worker))
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory * min(1, resources.gpus_per_worker))
    return None
