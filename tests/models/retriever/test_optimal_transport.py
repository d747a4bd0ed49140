"""The m-LTM objective against POT, the einsum of the reference code, finite differences and its invariants."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.retriever.optimal_transport import (
    MahalanobisMetric,
    log_plan,
    m_ltm_loss,
    pairwise_distance,
    transport_plan,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import ot


def embeddings(
    batch: int = 12, dim: int = 16, noise: float = 0.8, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Unit rows that match the better the less noise there is."""
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(batch, dim, generator=generator, dtype=dtype)
    text = audio + noise * torch.randn(batch, dim, generator=generator, dtype=dtype)
    return normalize(audio, dim=-1), normalize(text, dim=-1)


def relative_cost(batch: int, dim: int, noise: float, seed: int = 0) -> Tensor:
    distance = pairwise_distance(*embeddings(batch, dim, noise, seed))
    return distance / distance.max()


def uniform(size: int) -> np.ndarray:
    return np.full(size, 1 / size)


# --- distances -----------------------------------------------------------------------------------------------------


def test_distances_equal_the_mahalanobis_form() -> None:
    audio, text = embeddings()
    metric = MahalanobisMetric(16).double()
    with torch.no_grad():
        metric.factor.copy_(torch.randn(16, 16, dtype=torch.float64))
    full = metric.factor.T @ metric.factor
    difference = audio[:, None] - text[None]
    expected = torch.einsum("ijk,kl,ijl->ij", difference, full, difference).sqrt()
    torch.testing.assert_close(pairwise_distance(metric(audio), metric(text)), expected)


def test_diagonal_metric_equals_the_einsum_of_the_reference() -> None:
    """Whose 'kk' reads the diagonal of M alone."""
    audio, text = embeddings(64, 256, dtype=torch.float32)
    metric = MahalanobisMetric(256, "diagonal")
    m = torch.rand(256, 256) + torch.eye(256)
    with torch.no_grad():
        metric.factor.copy_(m.diagonal().sqrt())
    difference = audio[:, None] - text[None]
    expected = torch.einsum("ijk,ikj,kk->ij", difference, difference.transpose(1, 2), m).sqrt()
    torch.testing.assert_close(pairwise_distance(metric(audio), metric(text)), expected, atol=1e-5, rtol=0)


def test_metrics_start_at_the_identity_and_that_one_learns_nothing() -> None:
    audio, _ = embeddings(dtype=torch.float32)
    for form, sizes in (("full", [256]), ("diagonal", [16]), ("identity", [])):
        metric = MahalanobisMetric(16, form)
        torch.testing.assert_close(metric(audio), audio)
        assert [parameter.numel() for parameter in metric.parameters()] == sizes
    assert not MahalanobisMetric(16, "identity").state_dict()
    with pytest.raises(ValueError, match="found 'banana'"):
        MahalanobisMetric(16, "banana")


@pytest.mark.parametrize("shared", [0.0, 30.0])
def test_single_precision_is_enough(shared: float) -> None:
    """Also where all embeddings lie in a narrow cone, and squares of distances are small beside those of norms."""
    audio, text = embeddings(64, 256, noise=1.0)
    common = shared * normalize(torch.ones(256, dtype=torch.float64), dim=0)
    audio, text = (normalize(x + common, dim=-1).float() for x in (audio, text))
    values, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        leaf = audio.to(dtype, copy=True).requires_grad_()
        loss = m_ltm_loss(leaf, text.to(dtype), 0.05)
        loss.backward()
        values.append(loss.double().detach())
        assert leaf.grad is not None
        gradients.append(leaf.grad.double())
    torch.testing.assert_close(values[0], values[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5 * float(gradients[1].abs().max()), rtol=0)


# --- plans ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, 32, 256])
@pytest.mark.parametrize("epsilon", [0.005, 0.03, 1.0])
def test_plan_has_uniform_marginals(epsilon: float, batch: int) -> None:
    """In few sweeps: without Newton's steps some of these take tens of thousands."""
    for noise in (0.3, 1.0, 3.0):
        found = transport_plan(relative_cost(batch, 8, noise), epsilon)
        plan = found.log.exp()
        for axis in (0, 1):
            assert float((plan.sum(axis) - 1 / batch).abs().sum()) < 2e-9
        assert found.sweeps < 500


def test_a_plan_that_is_not_found_is_said() -> None:
    with pytest.warns(UserWarning, match=r"32 rows at epsilon 0.005: its sums are .* off after 11 sweeps"):
        transport_plan(relative_cost(32, 8, 1.0), 0.005, max_rounds=1)


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("method", ["sinkhorn", "sinkhorn_log"])
def test_plan_is_that_of_pot(method: str, epsilon: float) -> None:
    cost = torch.rand(32, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = ot.sinkhorn(
        uniform(32), uniform(48), cost.numpy(), epsilon, method, numItermax=20_000, stopThr=1e-12, warn=False
    )
    np.testing.assert_allclose(log_plan(cost, epsilon).exp().numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("epsilon", [0.03, 0.1, 1.0])
@pytest.mark.parametrize("mass", [0.5, 0.95])
def test_partial_plan_is_that_of_pot(mass: float, epsilon: float) -> None:
    cost = relative_cost(24, 8, 1.0)[:, :20]
    plan = transport_plan(cost, epsilon, mass)
    expected = ot.partial.entropic_partial_wasserstein(
        uniform(24), uniform(20), cost.numpy(), epsilon, mass, numItermax=5000, stopThr=1e-14
    )
    np.testing.assert_allclose(plan.log.exp().numpy(), expected, atol=1e-8)


@pytest.mark.parametrize("epsilon", [0.005, 0.03, 1.0])
@pytest.mark.parametrize("mass", [0.5, 0.95])
def test_partial_plan_keeps_its_bounds(mass: float, epsilon: float) -> None:
    plan = transport_plan(relative_cost(128, 8, 1.0), epsilon, mass).log.exp()
    assert float(plan.sum()) == pytest.approx(mass, abs=1e-7)
    for axis in (0, 1):
        assert float(plan.sum(axis).max()) <= 1 / 128 + 1e-7


# --- loss ----------------------------------------------------------------------------------------------------------


def plain_loss(audio: Tensor, text: Tensor, epsilon: float) -> Tensor:
    """As the reference has it, with POT's iterations in the graph."""
    distance = (audio[:, None] - text[None]).square().sum(-1).sqrt()
    sizes = torch.full((len(audio),), 1 / len(audio), dtype=audio.dtype)
    plan = ot.sinkhorn(sizes, sizes, distance / distance.max(), epsilon, numItermax=2000, stopThr=1e-13, warn=False)
    return -plan.diagonal().log().mean()


@pytest.mark.parametrize("noise", [1.0, 10.0])
def test_loss_and_gradient_are_those_of_unrolled_iterations(noise: float) -> None:
    audio, text = embeddings(noise=noise)
    gradients = []
    for loss in (m_ltm_loss, plain_loss):
        leaf = audio.clone().requires_grad_()
        value = loss(leaf, text, 0.1)
        value.backward()
        gradients.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-6)


def test_loss_is_at_least_log_b_and_twice_that_when_nothing_is_known() -> None:
    for noise in (0.0, 0.8, 10.0):
        assert float(m_ltm_loss(*embeddings(noise=noise), 0.03)) >= math.log(12) - 1e-9
    assert float(m_ltm_loss(*embeddings(noise=0.0), 0.03)) == pytest.approx(math.log(12), abs=1e-3)
    same = torch.ones(12, 16, dtype=torch.float64)
    assert float(m_ltm_loss(torch.zeros_like(same), same, 0.03)) == pytest.approx(2 * math.log(12))


def test_partial_loss_is_at_least_log_b_minus_log_mass() -> None:
    for noise in (0.8, 10.0):
        assert float(m_ltm_loss(*embeddings(noise=noise), 0.03, 0.9)) >= math.log(12) - math.log(0.9) - 1e-9
    matched = m_ltm_loss(torch.eye(12).double(), torch.eye(12).double(), 0.03, 0.9)
    assert float(matched) == pytest.approx(math.log(12) - math.log(0.9), abs=1e-6)
    same = torch.ones(12, 16)
    assert float(m_ltm_loss(0 * same, same, 0.03, 0.9)) == pytest.approx(2 * math.log(12) - math.log(0.9), abs=1e-6)


def test_captions_of_one_clip_share_their_target() -> None:
    """The perfect plan spreads evenly over them, and no caption is pushed from another one's audio."""
    uneven = torch.tensor([0, 0, 0, 1, 1, 2])
    clips = torch.eye(3, dtype=torch.float64)[uneven]
    floor = math.log(6) + (3 * math.log(3) + 2 * math.log(2)) / 6
    assert float(m_ltm_loss(clips, clips, 0.03, groups=uneven)) == pytest.approx(floor, abs=1e-6)
    groups = torch.arange(12) // 2
    clips = torch.eye(6).repeat_interleave(2, 0)
    floor = math.log(12) + math.log(2)
    audio, text = embeddings(noise=3.0, dtype=torch.float32)
    assert float(m_ltm_loss(audio, text, 0.03, groups=groups)) >= floor
    alone = m_ltm_loss(audio, text, 0.03, groups=torch.arange(12))
    torch.testing.assert_close(alone, m_ltm_loss(audio, text, 0.03))
    leaf = clips.clone().requires_grad_()
    m_ltm_loss(leaf, clips, 0.3, groups=groups).backward()
    assert leaf.grad is not None
    twins = leaf.grad[0::2] - leaf.grad[1::2]
    torch.testing.assert_close(twins, torch.zeros_like(twins), atol=1e-6, rtol=0)


def test_loss_does_not_depend_on_the_metrics_scale() -> None:
    audio, text = embeddings()
    assert float(m_ltm_loss(10 * audio, 10 * text, 0.05)) == pytest.approx(float(m_ltm_loss(audio, text, 0.05)))


@pytest.mark.parametrize("epsilon", [0.005, 0.05, 0.3])
@pytest.mark.parametrize("noise", [0.8, 3.0])
@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_gradient_agrees_with_finite_differences(epsilon: float, noise: float, form: str) -> None:
    """Of the embeddings and the metric, through the division by the largest distance, too."""
    audio, text = embeddings(batch=6, dim=4, noise=noise)
    factor = MahalanobisMetric(4, form).double().factor.detach() + 0.1

    def loss(factor: Tensor, a: Tensor, t: Tensor) -> Tensor:
        under = (lambda x: x * factor) if factor.dim() == 1 else (lambda x: x @ factor.T)
        return m_ltm_loss(under(a), under(t), epsilon)

    inputs = [x.clone().requires_grad_() for x in (factor, audio, text)]
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-4, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("mass", [0.7, 0.95, 1.0])
def test_gradient_with_mass_and_groups_agrees_with_finite_differences(mass: float, grouped: bool) -> None:
    groups = torch.tensor([0, 0, 0, 1, 2, 1, 3, 4]) if grouped else None
    inputs = [x.clone().requires_grad_() for x in embeddings(batch=8, dim=4, noise=1.0, seed=3)]
    assert torch.autograd.gradcheck(
        lambda a, t: m_ltm_loss(a, t, 0.1, mass, groups), inputs, eps=1e-6, atol=1e-4, rtol=1e-4, fast_mode=True
    )


@pytest.mark.parametrize("mass", [1.0, 0.95])
@pytest.mark.parametrize("epsilon", [0.005, 0.03, 1.0])
@pytest.mark.parametrize(("batch", "dim"), [(1, 4), (2, 4), (64, 512)])
def test_values_and_gradients_are_finite(batch: int, dim: int, epsilon: float, mass: float) -> None:
    for noise in (0.0, 1.0, 100.0):
        audio, text = embeddings(batch, dim, noise, dtype=torch.float32)
        leaf = audio.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = m_ltm_loss(leaf, text, epsilon, mass)
        loss.backward()
        assert torch.isfinite(loss)
        assert loss.dtype == torch.float32
        assert float(loss.detach()) >= math.log(batch) - 1e-4
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_a_batch_of_4096_pairs() -> None:
    audio, text = embeddings(4096, 32, noise=3.0, dtype=torch.float32)
    leaf = audio.requires_grad_()
    loss = m_ltm_loss(leaf, text, 0.1)
    loss.backward()
    assert math.log(4096) < float(loss.detach()) < 2 * math.log(4096)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


def test_autocast_computes_in_float32() -> None:
    audio, text = embeddings(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = m_ltm_loss(audio, text, 0.03)
    torch.testing.assert_close(under_autocast, m_ltm_loss(audio, text, 0.03))
    halves = m_ltm_loss(audio.bfloat16(), text.bfloat16(), 0.03)
    torch.testing.assert_close(halves, m_ltm_loss(audio.bfloat16().float(), text.bfloat16().float(), 0.03))
