"""The m-LTM objective against POT-free invariants, finite differences and its naive formulation."""

import math

import pytest
import torch

from models.optimal_transport import MahalanobisMetric, log_plan, m_ltm_loss, pairwise_distance


def embeddings(batch: int = 12, dim: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return audio, audio + 0.8 * torch.randn(batch, dim, generator=generator, dtype=torch.float64)


def test_distances_equal_the_mahalanobis_form() -> None:
    audio, text = embeddings()
    metric = MahalanobisMetric(16).double()
    with torch.no_grad():
        metric.factor.copy_(torch.randn(16, 16, dtype=torch.float64))
    full = metric.factor.T @ metric.factor
    difference = audio[:, None] - text[None]
    expected = torch.einsum("ijk,kl,ijl->ij", difference, full, difference).sqrt()
    torch.testing.assert_close(pairwise_distance(metric(audio), metric(text)), expected)


def test_diagonal_metric_weighs_each_dimension() -> None:
    audio, text = embeddings()
    metric = MahalanobisMetric(16, "diagonal").double()
    with torch.no_grad():
        metric.factor.copy_(torch.rand(16, dtype=torch.float64))
    expected = ((audio[:, None] - text[None]).square() * metric.factor.square()).sum(-1).sqrt()
    torch.testing.assert_close(pairwise_distance(metric(audio), metric(text)), expected)


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 1.0])
def test_plan_has_uniform_marginals(epsilon: float) -> None:
    plan = log_plan(torch.rand(32, 48, dtype=torch.float64), epsilon, max_iterations=5000, tolerance=1e-9).exp()
    torch.testing.assert_close(plan.sum(1), torch.full((32,), 1 / 32, dtype=torch.float64), atol=1e-8, rtol=0)
    torch.testing.assert_close(plan.sum(0), torch.full((48,), 1 / 48, dtype=torch.float64), atol=1e-8, rtol=0)


def test_loss_is_at_least_log_b_and_twice_that_when_nothing_is_known() -> None:
    audio, text = embeddings()
    assert float(m_ltm_loss(audio, text, 0.03)) >= math.log(12)
    same = torch.ones(12, 16, dtype=torch.float64)
    assert float(m_ltm_loss(torch.zeros_like(same), same, 0.03)) == pytest.approx(2 * math.log(12))


def test_loss_does_not_depend_on_the_metrics_scale() -> None:
    audio, text = embeddings()
    assert float(m_ltm_loss(10 * audio, 10 * text, 0.05)) == pytest.approx(float(m_ltm_loss(audio, text, 0.05)))


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_gradient_agrees_with_finite_differences(epsilon: float) -> None:
    audio, text = embeddings(batch=6, dim=4)
    metric = MahalanobisMetric(4).double()

    def loss(factor: torch.Tensor, a: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return m_ltm_loss(a @ factor.T, t @ factor.T, epsilon)

    inputs = (metric.factor.detach().clone(), audio, text)
    leaves = [x.clone().requires_grad_() for x in inputs]
    loss(*leaves).backward()
    for which, leaf in enumerate(leaves):
        for cell in [(0, 0), (1, 2), (3, 3)]:
            values = []
            for step in (1e-5, -1e-5):
                moved = [x.clone() for x in inputs]
                moved[which][cell] += step
                values.append(float(loss(*moved)))
            assert float(leaf.grad[cell]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize("epsilon", [0.005, 0.03, 1.0])
def test_coincident_embeddings_stay_finite_in_float32(epsilon: float) -> None:
    audio = torch.randn(8, 16).requires_grad_()
    loss = m_ltm_loss(audio, audio.detach(), epsilon)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(audio.grad).all()


def test_autocast_computes_the_plan_in_float32() -> None:
    audio, text = (x.float() for x in embeddings())
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = m_ltm_loss(audio, text, 0.03)
    torch.testing.assert_close(under_autocast, m_ltm_loss(audio, text, 0.03))
