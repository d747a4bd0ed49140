"""Linear layers at a lower precision stay close to float32, and no row depends on the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.ensemble import Ensemble
from models.ensemble.precision import CastLinear, Int8Linear, Precision
from models.errors import InputError

from ...small_bundle import write_bundle, write_sounds

CPU = torch.device("cpu")
# Of the norm of a row of products: steps of 8 bits on both sides, and half the last bit of bf16 and fp16.
TOLERANCE = {"int8": 2e-2, "bf16": 2**-8, "fp16": 2**-11}


def lowered(layer: nn.Linear, kind: str) -> nn.Module:
    precision = Precision.of(None, True, CPU) if kind == "int8" else Precision.of(kind, False, CPU)
    return precision.apply(nn.Sequential(nn.Linear(layer.in_features, layer.out_features), nn.ReLU(), layer))[2]


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_close_to_what_it_was(kind: str, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(256, 48, bias=bias)
    inputs = torch.randn(3, 5, 256)
    inputs[1] *= 1000  # rows have scales of their own
    made = lowered(layer, kind)
    assert isinstance(made, Int8Linear if kind == "int8" else CastLinear)
    found, expected = made(inputs), layer(inputs)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    error = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert 0 < error.max() < TOLERANCE[kind]


@pytest.mark.parametrize("kind", TOLERANCE)
def test_a_row_is_the_same_alone_and_among_others(kind: str) -> None:
    torch.manual_seed(0)
    layer = lowered(nn.Linear(64, 32), kind)
    inputs = torch.randn(40, 64) * torch.logspace(-3, 3, 40)[:, None]
    inputs[7] = 0
    together = layer(inputs)
    alone = torch.cat([layer(row[None]) for row in inputs])
    if kind == "int8":
        assert torch.equal(together, alone)
    else:
        torch.testing.assert_close(together, alone, rtol=TOLERANCE[kind], atol=1e-3)
    assert torch.isfinite(together).all()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_sounds(tmp_path_factory.mktemp("sounds"))


@pytest.mark.parametrize("arguments", [{"dtype": "bf16"}, {"dtype": "fp16"}, {"int8": True}, {"dtype": "fp32"}])
def test_a_bundle_captions_and_retrieves_alike_at_each_precision(
    exported: Path, sounds: list[Path], arguments: dict[str, Any]
) -> None:
    whole, lower = Ensemble.load(exported, "cpu"), Ensemble.load(exported, "cpu", **arguments)
    expected, found = whole.caption(sounds), lower.caption(sounds)
    for one, other in zip(expected, found, strict=True):
        known = {candidate.text: candidate.encoder_score["retriever"] for candidate in one.candidates}
        shared = [candidate for candidate in other.candidates if candidate.text in known]
        assert shared
        for candidate in shared:
            assert candidate.encoder_score["retriever"] == pytest.approx(known[candidate.text], abs=0.05)
    for ensemble in (whole, lower):
        ensemble.index(sounds)
    kinds = {type(module) for module in lower.captioners["captioner"].bart.modules()}
    if arguments != {"dtype": "fp32"}:
        assert nn.Linear not in kinds
        assert {Int8Linear, CastLinear} & kinds
    else:
        assert [caption.text for caption in found] == [caption.text for caption in expected]
    np.testing.assert_allclose(lower.similarity(["rain"]), whole.similarity(["rain"]), atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int4"}, "dtype: found 'int4', expected one of fp32, bf16, fp16"),
        ({"dtype": "bf16", "int8": True}, "int8: found together with dtype 'bf16'"),
        ({"device": "meta", "int8": True}, "int8: computes on the CPU, found device meta"),
        ({"device": "abacus"}, "device: found 'abacus', expected one that torch finds here: cpu"),
        ({"device": "cuda:99"}, "device: found 'cuda:99', expected one"),
        ({"device": 3.5}, "device: found 3.5, expected one"),
    ],
)
def test_what_cannot_be_used_is_named(exported: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Ensemble.load(exported, **arguments)
