"""Cross-attention of many rows to one clip: its keys and values are computed once, and kept once.

N candidates of a clip are N rows of the decoder. generate() would give them N copies of the encoder states, project
each copy into keys and values, and read each at every step. Here the cache holds one row a clip, and the candidates'
queries attend to it side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, StaticCache


class SharedStatesCache(EncoderDecoderCache):
    """Keys and values of self-attention for each row, of cross-attention for each clip.

    Beams that change places stay with their clip.
    """

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Put the rows of self-attention in the order of `beam_idx` [rows]."""
        self.self_attention_cache.reorder_cache(beam_idx)


def shared_states_cache(bart: Any, states: Tensor, longest: int | None = None) -> SharedStatesCache:
    """Return the cache to generate with, for any number of rows a clip.

    Args:
        bart: one that `use_captioner_attention` prepared.
        states: encoder states [B, T, width].
        longest: keep self-attention in tensors of one shape with room for this many tokens; they grow when left out.
    """
    cross = DynamicCache(config=bart.config)
    for number, layer in enumerate(bart.model.decoder.layers):
        attention = layer.encoder_attn
        projected = (linear(states) for linear in (attention.k_proj, attention.v_proj))
        keys, values = (one.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for one in projected)
        cross.update(keys.contiguous(), values.contiguous(), number)
    own = StaticCache(bart.config, longest) if longest else DynamicCache(config=bart.config)
    return SharedStatesCache(own, cross)


def grouped_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, function: Callable[..., Any]
) -> Tensor:
    """Attend from N rows a clip, each of S steps, to the keys and values of their clip.

    Args:
        query: [B * N, heads, S, D].
        key, value: [B, heads, T, D].
        mask: [B * N, 1, 1 or S, T], alike for the rows of a clip and their steps.
        function: computes attention, with the arguments and results of transformers' attention functions.

    Returns:
        [B * N, S, heads, D].
    """
    clips, (rows, _, steps, _) = len(key), query.shape
    grouped = query.unflatten(0, (clips, rows // clips)).transpose(1, 2).flatten(2, 3)  # [B, heads, N * S, D]
    seen = None if mask is None else mask[:: rows // clips, :, :1]
    output: Tensor = function(module, grouped, key, value, seen, is_causal=False)[0]  # [B, N * S, heads, D]
    by_row: Tensor = output.unflatten(1, (rows // clips, steps)).flatten(0, 1)
    return by_row
