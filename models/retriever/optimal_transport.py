"""The m-LTM objective (Luong et al., ICLR 2024, arXiv 2405.10084): inverse optimal transport with a learned metric.

A batch of B audio and B text embeddings gives a Mahalanobis cost c_ij = sqrt((x_i - y_j)' M (x_i - y_j)). The entropic
transport plan between uniform marginals under that cost is compared with the plan that joins matching pairs, I/B; the
metric and both encoders learn to make them equal.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SCALING_LIMIT = 1e100  # largest factor in one round's sweeps; the next round starts from 1 again
SWEEPS_AT_LEAST = 10  # in a round
STEP_LENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01)  # of Newton's direction, tried in turn


class MahalanobisMetric(nn.Module):
    """A positive semi-definite metric M = L'L, so that distances are Euclidean between rows of x L'.

    `full` learns L [D, D]; `diagonal` learns one factor for each dimension, as the reference code effectively does;
    both start at the identity. `identity` has no parameter.
    """

    def __init__(self, dim: int, form: str = "full") -> None:
        super().__init__()
        if form not in ("full", "diagonal", "identity"):
            raise ValueError(f"metric: found {form!r}, expected 'full', 'diagonal' or 'identity'")
        self.factor: Tensor
        if form == "identity":
            self.register_buffer("factor", torch.ones(dim), persistent=False)
        else:
            self.factor = nn.Parameter(torch.eye(dim) if form == "full" else torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., D] to where the metric is Euclidean, [..., D]."""
        return x * self.factor if self.factor.dim() == 1 else x @ self.factor.T


class _SquaredDistance(torch.autograd.Function):
    """Squared distances, with a backward pass that holds few tensors of the embeddings' size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        # A shift changes no distance, and makes rounding errors of the difference below smaller.
        centre = (x.mean(0) + y.mean(0)) / 2
        x, y = x - centre, y - centre
        ctx.save_for_backward(x, y)
        norms = (x.square().sum(-1, keepdim=True), y.square().sum(-1))
        return (x @ y.T).mul_(-2).add_(norms[0]).add_(norms[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        gradient = 2 * gradient
        for_x = torch.addmm(gradient.sum(1, keepdim=True) * x, gradient, y, alpha=-1)
        return for_x, torch.addmm(gradient.sum(0)[:, None] * y, gradient.T, x, alpha=-1)


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Compute squared Euclidean distances [N, M] of x [N, D] and y [M, D] without an N×M×D tensor.

    By rounding, those of coincident rows may be a little below 0.
    """
    found: Tensor = _SquaredDistance.apply(x, y)
    return found


def pairwise_distance(x: Tensor, y: Tensor) -> Tensor:
    """Compute Euclidean distances [N, M] of x [N, D] and y [M, D].

    The square is clamped at 1e-8, so that coincident rows have a finite gradient.
    """
    return squared_distance(x, y).clamp_min(1e-8).sqrt()


@dataclass(frozen=True)
class Plan:
    """An entropic transport plan pi = exp(-cost / epsilon + f_i + g_j + h) of N rows and M columns, in float64."""

    log: Tensor  # [N, M] log pi
    tight_rows: Tensor  # [N] bool: f holds the row's sum at 1/N
    tight_columns: Tensor  # [M] bool: g holds the column's sum at 1/M
    error: float  # of the sums of rows, of columns and of all cells: absolute values, added up
    sweeps: int


@torch.no_grad()
def transport_plan(
    cost: Tensor, epsilon: float, mass: float = 1.0, tolerance: float | None = None, max_rounds: int = 50
) -> Plan:
    """Compute the entropic transport plan between uniform marginals.

    With `mass` below 1 it is the partial plan of Benamou et al. (2015): rows sum to at most 1/N, columns to at most
    1/M, all cells to `mass`; f, g <= 0 then are the multipliers of these bounds, and h that of the mass.

    Both maximise a concave dual. A round is a Newton step on it (none in the first round, which mostly suffices), a
    sweep over the variables in the log domain, where no epsilon underflows, and as many Sinkhorn sweeps by
    matrix-vector products as take about the time of a Newton step. Sweeps alone would need many thousands if epsilon is
    small and the matching half learned.

    Args:
        cost: [N, M], of any real dtype; everything here is computed in float64.
        epsilon: entropic regularisation, in units of the cost.
        mass: transported mass, above 0 and at most 1.
        tolerance: largest `error`; 1e-9 when left out, 1e-8 for a partial plan.
        max_rounds: the plan is returned with a warning if these did not suffice.
    """
    if tolerance is None:
        tolerance = 1e-9 if mass == 1 else 1e-8
    dual = _Dual(-cost.double() / epsilon, mass, tolerance)
    dual.sweep_in_log_domain()
    dual.sweep_by_scaling()
    for _ in range(max_rounds - 1):
        if dual.error() < tolerance:
            break
        dual.newton_step()
        dual.sweep_by_scaling()
    error = dual.error()
    if not error < tolerance:
        warnings.warn(
            f"transport plan of {len(cost)} rows at epsilon {epsilon:g}: its sums are {error:.1e} off after "
            f"{dual.sweeps} sweeps, and the gradient is about as exact; a larger epsilon converges sooner",
            stacklevel=2,
        )
    return Plan(dual.log_plan(), dual.tight_rows(), dual.tight_columns(), error, dual.sweeps)


def log_plan(cost: Tensor, epsilon: float) -> Tensor:
    """Return log pi [N, M] of the `transport_plan` of all mass."""
    return transport_plan(cost, epsilon).log


class _Dual:
    """The dual problem: its variables f [N, 1], g [1, M] and h [], and the plan [N, M] that they determine."""

    def __init__(self, kernel: Tensor, mass: float, tolerance: float) -> None:
        rows, columns = kernel.shape
        self.kernel, self.mass, self.partial, self.tolerance = kernel, mass, mass < 1, tolerance
        self.row, self.column = 1 / rows, 1 / columns
        self.f, self.g = kernel.new_zeros(rows, 1), kernel.new_zeros(1, columns)
        self.h = math.log(mass) - kernel.logsumexp((0, 1)) if self.partial else kernel.new_zeros(())
        self.plan = kernel
        self.sweeps_in_round = max(SWEEPS_AT_LEAST, min(rows, columns) // 16)
        self.sweeps = 0

    def tight_rows(self) -> Tensor:
        return self.f[:, 0] < 0 if self.partial else torch.ones_like(self.f[:, 0], dtype=torch.bool)

    def tight_columns(self) -> Tensor:
        return self.g[0] < 0 if self.partial else torch.ones_like(self.g[0], dtype=torch.bool)

    def log_plan(self) -> Tensor:
        return self.kernel + (self.f + self.h) + self.g

    def value(self) -> Tensor:
        return self.mass * self.h + self.row * self.f.sum() + self.column * self.g.sum() - self.plan.sum()

    def error(self) -> float:
        """Return the error of all sums; that of a row or column that is not tight may be below its bound."""
        rows, columns = self.plan.sum(1) - self.row, self.plan.sum(0) - self.column
        rows = torch.where(self.tight_rows(), rows.abs(), rows.clamp_min(0))
        columns = torch.where(self.tight_columns(), columns.abs(), columns.clamp_min(0))
        return float(rows.sum() + columns.sum() + (self.plan.sum() - self.mass).abs())

    def sweep_in_log_domain(self) -> None:
        """Set g, h and f in turn to the best for the others."""
        self.g = math.log(self.column) - (self.kernel + (self.f + self.h)).logsumexp(0, keepdim=True)
        if self.partial:
            self.g = self.g.clamp_max(0)
            self.h = math.log(self.mass) - (self.kernel + self.f + self.g).logsumexp((0, 1))
        self.f = math.log(self.row) - (self.kernel + (self.g + self.h)).logsumexp(1, keepdim=True)
        if self.partial:
            self.f = self.f.clamp_max(0)
        self.plan = self.log_plan().exp_()
        self.sweeps += 1

    def sweep_by_scaling(self) -> None:
        """Sweep many times, by factors v, w and u of the plan's columns, of all its cells and of its rows."""
        u, w = torch.ones_like(self.f[:, 0]), torch.ones_like(self.h)
        most = w * SCALING_LIMIT
        least, most_u, most_v = 1 / most, most, most
        if self.partial:
            most_u, most_v = self.f[:, 0].neg().exp().minimum(most), self.g[0].neg().exp().minimum(most)
        v = torch.ones_like(self.g[0])
        for number in range(1, self.sweeps_in_round + 1):
            previous, v = v, (self.column / (w * (u @ self.plan))).maximum(least).minimum(most_v)
            sums = self.plan @ v
            if self.partial:
                w = (self.mass / (u @ sums)).maximum(least).minimum(most)
            u = (self.row / (w * sums)).maximum(least).minimum(most_u)
            if number % SWEEPS_AT_LEAST == 0 and (previous / v - 1).abs().mean() < self.tolerance / 10:
                break
        self.f, self.g, self.h = self.f + u.log()[:, None], self.g + v.log(), self.h + w.log()
        if self.partial:
            self.f, self.g = self.f.clamp_max(0), self.g.clamp_max(0)
        self.plan = self.plan.mul_(w * u[:, None]).mul_(v)
        self.sweeps += number

    def newton_step(self) -> None:
        """Move f and h along Newton's direction while the dual rises, and sweep once in the log domain."""
        sums = self.plan.sum(0)
        tight = self.tight_columns() | (sums > self.column)
        missing = torch.where(tight, self.column - sums, 0)
        mass = self.mass - self.plan.sum() if self.partial else None
        df, _, dh = dual_change(self.plan, self.tight_rows(), tight, missing, mass, damping=0.1 * self.error())
        present, f, h = self.value(), self.f, self.h
        for length in (*STEP_LENGTHS, 0.0):
            self.f, self.h = f + length * df, h + length * dh
            if self.partial:
                self.f = self.f.clamp_max(0)
            self.sweep_in_log_domain()
            if self.value() >= present - 1e-12 * (1 + present.abs()):  # smaller differences are rounding
                break


def dual_change(
    plan: Tensor, tight_rows: Tensor, tight_columns: Tensor, columns: Tensor, mass: Tensor | None, damping: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Find df [N, 1], dg [1, M] and dh [] that change the sums of columns by `columns` [M] and the total by `mass` [].

    This holds to first order, with the sums of tight rows unchanged. Only f and g of tight rows and columns move, and h
    if `mass` is given. `damping` keeps directions short that change next to nothing.
    """
    # A tight row's df cancels the change of its sum by dg and dh. With it eliminated, a system in dg (and dh) is left.
    share = plan / plan.sum(1, keepdim=True) * tight_rows[:, None]
    size = len(columns)
    system = torch.diag(plan.sum(0)) - plan.T @ share
    if mass is None:
        system += 1 / size**2  # f and g are free up to a constant, which gives dg a mean of 0
    else:
        loose = plan * ~tight_rows[:, None]
        system = torch.cat([system, loose.sum(0)[None]])
        system = torch.cat([system, torch.cat([loose.sum(0), loose.sum()[None]])[:, None]], 1)
        tight_columns = torch.cat([tight_columns, tight_columns.new_ones(1)])
        columns = torch.cat([columns, mass[None]])
    system *= tight_columns[:, None] & tight_columns
    system += torch.diag((~tight_columns).to(plan.dtype))
    system.diagonal().add_((1e-12 + damping) / size)
    step = torch.cholesky_solve(columns[:, None], torch.linalg.cholesky_ex(system)[0])[:, 0]
    dg, dh = (step, step.new_zeros(())) if mass is None else (step[:-1], step[-1])
    return -(share @ dg + tight_rows * dh)[:, None], dg[None], dh


def plan_at_full_mass(plan: Plan, mass: float) -> Tensor:
    """Extrapolate a plan to mass 1 along its derivative by the mass: pi [N, M]."""
    pi = plan.log.exp()
    if mass == 1:
        return pi
    df, dg, dh = dual_change(pi, plan.tight_rows, plan.tight_columns, pi.new_zeros(pi.shape[1]), pi.new_ones(()))
    return pi * (1 + (1 - mass) * (df + dg + dh))


def same_clip(groups: Tensor | None, like: Tensor) -> Tensor:
    """Return which audio and text of a batch match, [B, B] bool: the diagonal, or where `groups` [B] are equal."""
    if groups is None:
        return torch.eye(len(like), dtype=torch.bool, device=like.device)
    return groups[:, None] == groups


def m_ltm_loss(
    audio: Tensor, text: Tensor, epsilon: float, transported_mass: float = 1.0, groups: Tensor | None = None
) -> Tensor:
    """Compute the m-LTM loss of B matching pairs: -sum(pi_hat * log pi), at least log B - log(transported_mass).

    pi_hat joins matching pairs: I/B, or with `groups` 1/(B n) in each cell of a clip's n pairs, and the bound rises by
    the mean of log n. Distances are divided by the batch's largest, as in the reference, so `epsilon` does not depend
    on the metric's scale.

    The gradient is that at the fixed point, without the iterations. The loss is <pi_hat, cost> / epsilon minus the
    dual's optimum, so by the envelope theorem d loss / d cost = (pi_hat - pi) / epsilon. A partial plan's dual has
    mass * h where the loss has h; `plan_at_full_mass` accounts for the difference.

    Args:
        audio: [B, D], already mapped by the metric.
        text: [B, D], likewise; row i describes row i of `audio`.
        epsilon: entropic regularisation, relative to the largest distance.
        transported_mass: below 1 the worst pairs may stay unmatched.
        groups: [B], equal for pairs of the same clip, which then are not each other's negatives.
    """
    # Half precision is too coarse for differences of distances, which epsilon divides.
    with torch.autocast(audio.device.type, enabled=False):
        precise = torch.promote_types(audio.dtype, torch.float32)
        distance = pairwise_distance(audio.to(precise), text.to(precise))
        cost = distance / distance.max()
        target = same_clip(groups, cost).double()
        target /= target.sum(1, keepdim=True) * len(cost)
        plan = transport_plan(cost.detach(), epsilon, transported_mass)
        value = -(target * plan.log).sum()
        slope = (target - plan_at_full_mass(plan, transported_mass)) / epsilon
        surrogate = (slope.to(precise) * cost).sum()
        return value.to(precise) + (surrogate - surrogate.detach())
