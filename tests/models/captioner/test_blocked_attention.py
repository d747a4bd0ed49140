"""Attention by blocks is attention with dropout."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from models.captioner import blocked_attention as blocked
from models.captioner.model import Captioner

from .test_model import Clips


def inputs(requires_grad: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 7, 5), (2, 3, 9, 5), (2, 3, 9, 5)]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=requires_grad) for shape in shapes
    ]


def seen() -> Tensor:
    return torch.arange(9) < torch.tensor([9, 6])[:, None, None, None]


def plain(query: Tensor, key: Tensor, value: Tensor, keep: Tensor, up: float) -> Tensor:
    scores = 0.3 * query @ key.transpose(2, 3)
    return scores.masked_fill(~seen(), -torch.inf).softmax(-1) * keep * up @ value


@pytest.mark.parametrize("cells", [1, 150, 2**21])
@pytest.mark.parametrize("additive", [False, True])
def test_as_the_formula_says_with_the_same_cells_dropped(
    cells: int, additive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "CELLS", cells)
    drawn: list[Tensor] = []
    original = blocked._draws

    def recorded(shape: torch.Size) -> Tensor:
        drawn.append(original(shape))
        return drawn[-1]

    monkeypatch.setattr(blocked, "_draws", recorded)
    torch.manual_seed(0)
    mask = torch.zeros(2, 1, 1, 9, dtype=torch.float64).masked_fill(~seen(), -torch.inf) if additive else seen()
    ours = query, key, value = inputs()
    found = blocked.blocked_attention(query, key, value, mask, 0.25, 0.3)
    keep = torch.cat(drawn).view(2, 3, 7, 9) >= -(2**14)
    assert 0 < int((~keep).sum()) < keep.numel() / 2
    theirs = query, key, value = inputs()
    expected = plain(query, key, value, keep, 4 / 3)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, dtype=torch.float64)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_cells_are_dropped_as_often_as_said_and_independently() -> None:
    torch.manual_seed(0)
    dropped = blocked._draws(torch.Size((400, 1001))) < round(0.1 * 2**16) - 2**15
    assert float(dropped.float().mean()) == pytest.approx(0.1, abs=0.003)  # six standard errors
    flat = dropped.flatten().float()
    for lag in (1, 2, 3, 4):
        assert float((flat[lag:] * flat[:-lag]).mean()) == pytest.approx(0.01, abs=0.001)


def test_a_captioner_trains_with_it_and_speaks_without(captioner: Captioner, clips: Clips) -> None:
    model = deepcopy(captioner)
    batch = (*model.pad_codes(clips[0]), torch.from_numpy(clips[1]), [["a dog barks twice nearby"]] * 5)
    states, _ = model.encode(*batch[:3])
    for layer in model.bart.model.encoder.layers:
        layer.self_attn.dropout = 0.1
    assert torch.equal(model.encode(*batch[:3])[0], states), "nothing is dropped in evaluation"
    model.train()
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(model(*batch)["loss"])
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    losses[0].backward()
    assert float(model.bart.model.encoder.layers[0].self_attn.q_proj.weight.grad.abs().sum()) > 0
