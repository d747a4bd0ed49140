"""Gather what is spread over workers."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def gather_rows(x: Tensor) -> Tensor:
    """Return the rows of all workers' x [b, D] in rank order, [b * workers, D]; x itself if there is one worker.

    Gradients flow to every worker's rows. Each worker computes the same loss over all rows, so a row's gradient
    arrives summed over workers, and the average that DistributedDataParallel takes is the global batch's gradient.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return x
    return torch.cat(all_gather(x)) if torch.distributed.get_world_size() > 1 else x


def sum_over_workers(x: Tensor) -> Tensor:
    """Return the sum of all workers' x, of one shape; x itself, which is changed in place, and without a gradient."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(x)
    return x
