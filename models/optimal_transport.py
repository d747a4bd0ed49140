"""The m-LTM objective (Luong et al., ICLR 2024, arXiv 2405.10084): inverse optimal transport with a learned metric.

A batch of B audio and B text embeddings gives a Mahalanobis cost c_ij = sqrt((x_i - y_j)' M (x_i - y_j)). The entropic
transport plan between uniform marginals under that cost is compared with the diagonal plan I/B; the metric and both
encoders learn to make them equal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MahalanobisMetric(nn.Module):
    """A positive semi-definite metric M = L'L, so that distances are Euclidean between rows of x L'.

    `full` learns L [D, D]; `diagonal` learns one factor a dimension, which is what the reference code effectively
    computes. Both start at the identity.
    """

    def __init__(self, dim: int, form: str = "full") -> None:
        super().__init__()
        if form not in ("full", "diagonal"):
            raise ValueError(f"metric: found {form!r}, expected 'full' or 'diagonal'")
        self.factor = nn.Parameter(torch.eye(dim) if form == "full" else torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., D] to where the metric is Euclidean, [..., D]."""
        return x * self.factor if self.factor.dim() == 1 else x @ self.factor.T


def pairwise_distance(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances [N, M] of x [N, D] and y [M, D] by one matrix product, never an N×M×D tensor.

    The square is clamped at 1e-8, so that coincident rows have a finite gradient.
    """
    squared = x.square().sum(-1, keepdim=True) + y.square().sum(-1) - 2 * x @ y.T
    return squared.clamp_min(1e-8).sqrt()


@torch.no_grad()
def log_plan(cost: Tensor, epsilon: float, max_iterations: int = 1000, tolerance: float = 1e-6) -> Tensor:
    """Entropic transport plan between uniform marginals, in the log domain.

    Args:
        cost: [N, M].
        epsilon: entropic regularisation, in units of the cost.
        max_iterations: Sinkhorn iterations at most.
        tolerance: stop when the column sums are this close to 1/M (sum of absolute errors); rows are exact.

    Returns:
        log pi [N, M].
    """
    rows, columns = cost.shape
    kernel = -cost / epsilon
    f = cost.new_zeros(rows, 1)
    for iteration in range(max_iterations):
        g = -math.log(columns) - torch.logsumexp(kernel + f, 0, keepdim=True)
        f = -math.log(rows) - torch.logsumexp(kernel + g, 1, keepdim=True)
        if iteration % 10 == 9:
            column_sums = torch.logsumexp(kernel + f + g, 0).exp()
            if (column_sums - 1 / columns).abs().sum() < tolerance:
                break
    return kernel + f + g


def m_ltm_loss(audio: Tensor, text: Tensor, epsilon: float) -> Tensor:
    """The m-LTM loss of B matching pairs: -(1/B) sum_i log pi_ii, at least log B.

    Distances are divided by the batch's largest, as in the reference, so `epsilon` does not depend on the metric's
    scale. The gradient is the exact one at the fixed point: d loss / d cost = (I/B - pi) / epsilon, by the envelope
    theorem on the dual; the Sinkhorn iterations themselves are not kept for the backward pass.

    Args:
        audio: [B, D], already mapped by the metric.
        text: [B, D], likewise; row i describes row i of `audio`.
        epsilon: entropic regularisation, relative to the largest distance.
    """
    # Half precision underflows in exp(-d/epsilon), so the cost and the plan are float32 at least under autocast too.
    with torch.autocast(audio.device.type, enabled=False):
        precise = torch.promote_types(audio.dtype, torch.float32)
        distance = pairwise_distance(audio.to(precise), text.to(precise))
        cost = distance / distance.max()
        log_pi = log_plan(cost.detach(), epsilon)
        matched = torch.eye(len(cost), dtype=cost.dtype, device=cost.device) / len(cost)
        value = -log_pi.diagonal().mean()
        surrogate = ((matched - log_pi.exp()) * cost).sum() / epsilon
        return value + surrogate - surrogate.detach()
