"""Fully sharded data parallelism: weights, gradients and the optimizer's state in pieces, one a worker.

Each layer's weights are gathered for its own forward and backward pass. The whole model comes together in the first
worker alone, to be validated and saved as any other.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from models.captioner.model import Captioner

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Shards:
    """A captioner that is cut into pieces in place; what is done here, all workers do together."""

    def __init__(self, model: Captioner, device: torch.device) -> None:
        self.first = torch.distributed.get_rank() == 0
        self.plain = deepcopy(model).eval() if self.first else None
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        for layer in [*model.bart.model.encoder.layers, *model.bart.model.decoder.layers]:
            fully_shard(layer, mesh=mesh)
        self.model: Any = fully_shard(model, mesh=mesh)

    def whole(self) -> Captioner | None:
        """The model in one piece, in the first worker; None in the others."""
        state = get_model_state_dict(self.model, options=WHOLE)
        if self.plain is not None:
            self.plain.load_state_dict(state)
        return self.plain

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """In one piece, in the first worker; empty in the others."""
        return get_optimizer_state_dict(self.model, optimizer, options=WHOLE)

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Take each worker's pieces out of what `optimizer_state` gave, whatever the number of workers was."""
        options = StateDictOptions(full_state_dict=True, strict=False)  # what had no gradient yet has no state
        set_optimizer_state_dict(self.model, optimizer, state, options=options)


def clip_gradients(model: nn.Module, largest: float) -> Tensor:
    """Scale gradients to a norm of at most `largest`, and return the norm before; of all pieces together."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), largest)
    return norm.full_tensor() if isinstance(norm, torch.distributed.tensor.DTensor) else norm
