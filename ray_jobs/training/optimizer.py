"""Group the parameters for the optimizer, schedule its learning rate, and average the weights that it makes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ray_jobs.experiment.training_config import Training


def parameter_groups(model: nn.Module, training: Training) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups, those of the full learning rate first.

    Weight decay is for matrices only, not for biases, norms and other vectors. (EnCLAP lists by name what does not
    decay, and so decays one norm, BART's `layernorm_embedding.weight`; nothing else differs.) With `layer_decay`, the
    learning rate of each layer of an encoder is that of the layer above times this factor.
    """
    depths: dict[str, int] = {}
    if training.layer_decay < 1:
        from models.encoders.layer_decay import layer_depths  # loads encoders, which not every model has

        depths = layer_depths(model)
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
    """Return the factor of the learning rate at each step, from 0 on: a linear warm-up, then the schedule.

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


def warm_cosine(total: int, warmup: int, last: float) -> Callable[[int], float]:
    """Return the factor of the learning rate at each of `total` steps: a cosine from 1 to `last`, times a warm-up.

    Unlike the cosine of `lr_lambda`, it falls from the first step on, and not to 0.
    """

    def at(step: int) -> float:
        done = step + 1
        return min(1.0, done / warmup) * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * done / total)))

    return at


def load_optimizer_state(optimizer: Optimizer, schedule: LambdaLR, saved: dict[str, Any]) -> None:
    """Take over the moments and the step of another training; learning rates and weight decay stay as they are.

    Args:
        saved: the state_dicts of the other training's `optimizer` and `schedule`.
    """
    own = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": saved["optimizer"]["state"], "param_groups": own})
    step = schedule.last_epoch = saved["schedule"]["last_epoch"]
    for group, rate, at in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = rate * at(step)


def moving_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return a moving average of a model's weights, to be updated after every step; None if `decay` is 0."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
