"""NT-Xent and triplet losses against their definitions, pair by pair."""

import math

import pytest
import torch
from torch import Tensor

from models.contrastive import nt_xent_loss, triplet_loss

EYE = torch.eye(4, dtype=torch.bool)
GROUPED = torch.tensor([0, 1, 0, 2])[:, None] == torch.tensor([0, 1, 0, 2])


def distances() -> Tensor:
    return torch.rand(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("matching", [EYE, GROUPED], ids=["alone", "grouped"])
def test_nt_xent_by_definition(matching: Tensor) -> None:
    distance, temperature = distances(), 0.3
    expected = 0.0
    for rows in (distance, distance.T):
        for row, own in zip(rows, matching, strict=True):
            weights = (-row / temperature).exp()
            expected -= float((weights[own] / weights.sum()).log().mean()) / 8
    assert float(nt_xent_loss(distance, matching, torch.tensor(temperature))) == pytest.approx(expected)


def test_nt_xent_of_a_blind_model_is_log_b() -> None:
    assert float(nt_xent_loss(torch.ones(4, 4), EYE, torch.tensor(0.1))) == pytest.approx(math.log(4))


@pytest.mark.parametrize("hardest", [True, False])
@pytest.mark.parametrize("matching", [EYE, GROUPED], ids=["alone", "grouped"])
def test_triplet_by_definition(matching: Tensor, hardest: bool) -> None:
    distance, margin = distances(), 0.2
    expected = 0.0
    for rows in (distance, distance.T):
        for i in range(4):
            found = [max(0.0, margin + float(rows[i, i] - rows[i, j])) for j in range(4) if not matching[i, j]]
            expected += (max(found) if hardest else sum(found) / len(found)) / 4
    assert float(triplet_loss(distance, matching, margin, hardest)) == pytest.approx(expected)


def test_captions_of_one_clip_are_no_negatives() -> None:
    """The gradient never pushes an audio from another caption of its clip."""
    for loss in (
        lambda d: triplet_loss(d, GROUPED, 5.0, hardest=False),
        lambda d: nt_xent_loss(d, GROUPED, torch.tensor(1.0)),
    ):
        distance = distances().requires_grad_()
        loss(distance).backward()
        assert distance.grad is not None
        assert float(distance.grad[0, 2]) >= 0, "nearer is not worse"
        assert float(distance.grad[0, 1]) < 0, "another clip is pushed away"


def test_a_batch_of_one_clip_has_no_triplets() -> None:
    everything = torch.ones(4, 4, dtype=torch.bool)
    for hardest in (True, False):
        assert float(triplet_loss(distances(), everything, 0.2, hardest)) == 0
