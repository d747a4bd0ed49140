"""What the optimizer steps on, how far, and the average of the weights behind it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.encoders.layer_decay import layer_depths
from ray_jobs.experiment.member_config import Training


def parameter_groups(model: nn.Module, training: Training) -> list[dict[str, Any]]:
    """What the optimizer steps on, those of the full learning rate first.

    Weight decay is for matrices only: not for biases, norms and other vectors. (EnCLAP names what does not decay, and
    so decays one norm, BART's `layernorm_embedding.weight`; nothing else differs.) With `layer_decay`, each layer of an
    encoder learns so much more slowly than the one above it.
    """
    depths = layer_depths(model) if training.layer_decay < 1 else {}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {(0, True): [], (0, False): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((depths.get(name, 0), parameter.dim() > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": training.learning_rate * training.layer_decay**depth,
            "weight_decay": training.weight_decay if matrices else 0.0,
        }
        for (depth, matrices), parameters in groups.items()
    ]


def lr_lambda(training: Training, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate's factor at a step: linear warm-up, then the schedule.

    `inverse-sqrt` is EnCLAP's (arXiv 2401.17690): 1 / sqrt((step + shift) / time_scale) with shift = time_scale -
    warmup, so that it starts at 1 whatever the warm-up. The warm-up is one step ahead of EnCLAP's, whose first step
    has a factor of 0.
    """
    warmup, total = training.warmup_steps, training.epochs * steps_per_epoch
    time_scale = training.time_scale or warmup

    def at(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if training.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
        if training.schedule == "inverse-sqrt":
            return math.sqrt(time_scale / (step + time_scale - warmup))
        return 1.0

    return at


def load_optimizer_state(optimizer: Optimizer, schedule: LambdaLR, saved: dict[str, Any]) -> None:
    """Go on from another training's moments and place in the schedule; rates and weight decay stay the own ones.

    Args:
        saved: the state_dicts of its `optimizer` and its `schedule`.
    """
    own = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": saved["optimizer"]["state"], "param_groups": own})
    step = schedule.last_epoch = saved["schedule"]["last_epoch"]
    for group, rate, at in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = rate * at(step)


def moving_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential moving average of a model's weights, to be updated behind every step; None where it is off."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
