"""Cross-attention of many rows to one clip: its keys and values are computed once, and kept once.

N candidates of a clip are N rows of the decoder, which generate() would give N copies of the encoder states, project
each into keys and values, and read each at every step. Here the cache holds one row a clip, and the candidates' queries
attend to it side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, EncoderDecoderCache, StaticCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.bart.modeling_bart import eager_attention_forward

FUNCTIONS = {"sdpa": sdpa_attention_forward, "eager": eager_attention_forward}


class SharedStatesCache(EncoderDecoderCache):
    """Self-attention a row, cross-attention a clip; beams that change places stay with their clip."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Put the rows of self-attention in another order."""
        self.self_attention_cache.reorder_cache(beam_idx)


def shared_states_cache(bart: Any, states: Tensor, longest: int | None = None) -> SharedStatesCache:
    """The cache to generate with from encoder states [B, T, width], for any number of rows a clip.

    Args:
        longest: tokens that self-attention has room for in tensors of one shape; as it goes when left out.
    """
    cross = DynamicCache(config=bart.config)
    for number, layer in enumerate(bart.model.decoder.layers):
        attention = layer.encoder_attn
        _take_several_rows(attention)
        projected = (linear(states) for linear in (attention.k_proj, attention.v_proj))
        keys, values = (one.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for one in projected)
        cross.update(keys.contiguous(), values.contiguous(), number)
    own = StaticCache(bart.config, longest) if longest else DynamicCache(config=bart.config)
    return SharedStatesCache(own, cross)


def _take_several_rows(attention: Any) -> None:
    """Let a cross-attention module use `_grouped_attention`, which changes nothing for rows with keys of their own."""
    name = attention.config._attn_implementation
    if name in FUNCTIONS:
        attention.config = copy(attention.config)
        attention.config._attn_implementation = f"grouped-{name}"


def _grouped_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    *, function: Callable[..., Any], **options: Any,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Attention of queries [B * N, heads, 1, D] to keys and values [B, heads, T, D]."""
    each = len(query) // len(key)
    if each == 1:
        return function(module, query, key, value, attention_mask, **options)
    grouped = query.unflatten(0, (-1, each)).squeeze(3).transpose(1, 2)  # [B, heads, N, D]
    mask = None if attention_mask is None else attention_mask[::each]  # [B, 1, 1, T]
    output, _ = function(module, grouped, key, value, mask, is_causal=False, **options)  # [B, N, heads, D]
    return output.flatten(0, 1)[:, None], None


for _name, _function in FUNCTIONS.items():
    AttentionInterface.register(f"grouped-{_name}", partial(_grouped_attention, function=_function))
