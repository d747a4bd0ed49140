"""Train with fully sharded data parallelism: each worker holds a piece of weights, gradients and optimizer state.

Each layer's weights are gathered for its own forward and backward pass. Only the first worker gathers the whole model,
to validate and save it like any other.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from models.captioner.model import Captioner

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Shards:
    """A captioner that is sharded in place. All workers must call its methods together."""

    def __init__(self, model: Captioner, device: torch.device) -> None:
        self.first = torch.distributed.get_rank() == 0
        self.plain = deepcopy(model).eval() if self.first else None
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        for layer in [*model.bart.model.encoder.layers, *model.bart.model.decoder.layers]:
            fully_shard(layer, mesh=mesh)
        self.model: Any = fully_shard(model, mesh=mesh)

    def whole(self) -> Captioner | None:
        """Return the whole model in the first worker, None in the others."""
        state = get_model_state_dict(self.model, options=WHOLE)
        if self.plain is not None:
            self.plain.load_state_dict(state)
        return self.plain

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the whole state of the optimizer in the first worker, an empty one in the others."""
        return get_optimizer_state_dict(self.model, optimizer, options=WHOLE)

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Load each worker's pieces from what `optimizer_state` returned, for any number of workers."""
        # Not strict: parameters that had no gradient so far have no state.
        options = StateDictOptions(full_state_dict=True, strict=False)
        set_optimizer_state_dict(self.model, optimizer, state, options=options)

    def clip_gradients(self, largest: float) -> Tensor:
        """Scale gradients to a norm of at most `largest`, and return the norm before scaling, over all pieces."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), largest)
        return norm.full_tensor() if isinstance(norm, torch.distributed.tensor.DTensor) else norm
