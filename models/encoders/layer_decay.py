"""Layer-wise learning-rate decay: the deeper a pretrained layer, the smaller its steps (arXiv 1801.06146)."""

from __future__ import annotations

from torch import nn

from .audio import AudioEncoder
from .text import TextEncoder


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Return by name how many layers below its encoder's output each parameter acts; 0 outside of encoders."""
    depths = {name: 0 for name, _ in model.named_parameters()}
    for prefix, module in model.named_modules():
        if isinstance(module, (AudioEncoder, TextEncoder)):
            depths |= {f"{prefix}.{name}": depth for name, depth in module.layer_depths().items()}
    return depths
