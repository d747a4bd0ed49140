"""Compute the linear layers of members, which are most of their weights, at a lower precision than float32.

All else stays as it is: what goes into a layer and comes out of it is float32, so that any model may hold some. In
8 bits, weights have a scale for each output and activations one for each row, chosen as they come (ZeroQuant, arXiv
2206.01861, section 4.1), and the sums are exact: no clip depends on others in its batch, as it would with the single
scale that torch.ao.quantization gives a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..arguments import check_int8
from ..errors import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST = 127  # of 8 bits with a sign; -128 is not used
UNUSED = ("mcm_head",)  # layers of training alone, whose weights also say where a member is
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Precision:
    """What linear layers compute in: a dtype, or 8-bit integers."""

    dtype: torch.dtype = torch.float32
    int8: bool = False

    @classmethod
    def of(cls, dtype: str | None, int8: bool, device: torch.device) -> Precision:
        """Check what a user asks for.

        Raises:
            InputError: naming the argument.
        """
        if dtype is not None and not (isinstance(dtype, str) and dtype in DTYPES):
            raise InputError(f"dtype: found {dtype!r}, expected one of {', '.join(DTYPES)}")
        if int8 and device.type != "cpu":
            raise InputError(f"int8: computes on the CPU, found device {device}; give device='cpu', or leave int8 out")
        check_int8(dtype, int8)
        return cls(DTYPES[dtype or "fp32"], bool(int8))

    def apply(self, member: M) -> M:
        """Replace the linear layers in a member, in place; return it."""
        if not self.int8 and self.dtype == torch.float32:
            return member
        for parent in list(member.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear and name not in UNUSED:
                    setattr(parent, name, Int8Linear(child) if self.int8 else CastLinear(child, self.dtype))
        return member


class CastLinear(nn.Module):
    """A linear layer whose weights and products are of a dtype; inputs and outputs keep theirs."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach().to(dtype))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().to(dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        return linear(inputs.to(self.weight.dtype), self.weight, self.bias).to(inputs.dtype)


class Int8Linear(nn.Module):
    """A linear layer with weights of 8 bits, a scale for each output, and a scale for each row of its input."""

    weight: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        integers, scales = _to_int8(layer.weight.detach())
        self.register_buffer("weight", integers)
        self.register_buffer("scales", scales[:, 0])
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        integers, scales = _to_int8(inputs.flatten(0, -2))
        outputs: Tensor = torch._int_mm(integers, self.weight.t()).float()
        outputs.mul_(scales).mul_(self.scales)
        if self.bias is not None:
            outputs += self.bias
        shaped: Tensor = outputs.unflatten(0, inputs.shape[:-1])
        return shaped.to(inputs.dtype)


def _to_int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows [N, D] as integers of 8 bits, and the scale [N, 1] of each."""
    scales = rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / LARGEST
    return (rows / scales).round_().to(torch.int8), scales
