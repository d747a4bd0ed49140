"""The attention of the captioner, registered with transformers: one function in place of each of its own.

transformers asks one function for all attention of a model. Ours passes each call to what suits it: queries of several
rows a clip to `grouped_attention`, dropout in the encoder on a CPU to `blocked_attention`, and all others to the
function of transformers that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask
from transformers.models.bart.modeling_bart import eager_attention_forward

from .blocked_attention import blocked_attention, is_blocked
from .shared_cross_attention import grouped_attention

# By the name of the attention of transformers that each stands for: its own name in transformers' registry (in which
# `sdpa` would be taken for a claim about the whole model), and the function and masks that it builds on.
REGISTERED = {
    "sdpa": ("captioner-fused", sdpa_attention_forward, sdpa_mask),
    "eager": ("captioner-eager", eager_attention_forward, eager_mask),
}


def use_captioner_attention(bart: Any, name: str) -> None:
    """Let all attention of a BART of transformers go through this module.

    Args:
        name: computes it where nothing here is faster; a key of REGISTERED.
    """
    bart.set_attn_implementation(REGISTERED[name][0])


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    function: Callable[..., Any],
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend, with the arguments and results of transformers' attention functions.

    Args:
        module: the attention layer of a BART.
        query: [B * N, heads, T, D].
        key, value: [B, heads, S, D].
        function: of transformers.

    Returns:
        [B * N, T, heads, D], and None or the probabilities.
    """
    plain = partial(function, dropout=dropout, scaling=scaling, **options)
    if len(query) != len(key):
        return grouped_attention(module, query, key, value, attention_mask, plain), None
    if not module.is_decoder and is_blocked(query, dropout):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        output = blocked_attention(query, key, value, attention_mask, dropout, scale)
        return output.transpose(1, 2).contiguous(), None
    found: tuple[Tensor, Tensor | None] = plain(module, query, key, value, attention_mask)
    return found


for _name, _function, _mask in REGISTERED.values():
    AttentionInterface.register(_name, partial(attention, function=_function))
    AttentionMaskInterface.register(_name, _mask)
