"""The same training gives the same weights: no gradient is added up in an order that threads decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models.captioner.model import Captioner
from models.rows import take_rows
from models.settings import CaptionerConfig

from .conftest import CAPTIONS

Clips = tuple[list[np.ndarray], np.ndarray]


class NoUnorderedSums(TorchDispatchMode):
    """Fails where values are added at places of which some may be the same, by indexing's gradient."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        adds = "index_put" in str(func) and ((len(args) > 3 and args[3]) or (kwargs or {}).get("accumulate"))
        if adds and any(index is not None and index.dtype != torch.bool for index in args[1]):  # a mask names each once
            raise AssertionError(f"{func} adds to {list(args[0].shape)} in an order that threads decide")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_rows_and_their_gradient_are_those_of_indexing_and_always_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(50, (20, 2000), generator=generator)
    weight = torch.randn(*rows.shape, 64, generator=generator)

    def gradient(table: Tensor) -> Tensor:
        (take_rows(table, rows) * weight.to(table.dtype)).sum().backward()
        assert table.grad is not None
        return table.grad

    table = torch.randn(60, 64, dtype=torch.float64, generator=generator)
    assert torch.equal(take_rows(table, rows), table[rows])
    expected = torch.zeros_like(table).index_add(0, rows.flatten(), weight.flatten(0, 1).double())
    torch.testing.assert_close(gradient(table.clone().requires_grad_()), expected)
    first, *others = (gradient(table.float().requires_grad_()) for _ in range(10))
    assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize("long_clips", ["crop", "windows", "pool", "interpolate"])
def test_captioners(captioner: Captioner, clips: Clips, long_clips: str) -> None:
    sizes = captioner.config.sizes | {"max_position_embeddings": 60}
    settings = captioner.config.model_dump() | {"long_clips": long_clips, "sizes": sizes}
    model = Captioner.create(CaptionerConfig(**settings), CAPTIONS).train()
    with NoUnorderedSums():
        model(*model.pad_codes(clips[0]), torch.from_numpy(clips[1]), [CAPTIONS[:2]] * 5)["loss"].backward()
