"""Token-level ensembles: captioners that choose every token together, by the average of their distributions.

Each member runs its own decoder over its own encoder states with its own cache. All continue the same captions, so
they must share one tokenizer. `JointCaptioner` stands in for a captioner in `candidates.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from ..captioner.model import Captioner
from ..captioner.shared_cross_attention import SharedStatesCache, shared_states_cache

Average = Literal["log-probabilities", "probabilities"]


@dataclass(frozen=True)
class JointStates:
    """Every member's encoder states [B, R_i, width_i] and attention mask [B, R_i] of the same B clips."""

    states: list[Tensor]
    masks: list[Tensor]

    def __len__(self) -> int:
        return len(self.states[0])

    @property
    def device(self) -> torch.device:
        """The device of the first member."""
        return self.states[0].device


class JointCaptioner:
    """Captioners that generate one caption together, scored by the average of their distributions.

    Raises:
        ValueError: naming the member whose tokenizer differs from the first one's.
    """

    def __init__(self, members: dict[str, Captioner], average: Average) -> None:
        self.members = members
        (first, captioner), *others = members.items()
        self.tokenizer, self.ends = captioner.tokenizer, captioner.ends
        for name, other in others:
            check_tokenizer(first, captioner, name, other)
        self.bart = LockStep([member.bart for member in members.values()], average)


class LockStep(PreTrainedModel, GenerationMixin):
    """The average of several decoders' next tokens, which generate() sees as one model."""

    def __init__(self, barts: list[Any], average: Average) -> None:
        super().__init__(deepcopy(barts[0].config))
        self.barts = nn.ModuleList(barts)
        self.average = average
        self.generation_config = barts[0].generation_config

    def forward(
        self,
        decoder_input_ids: Tensor,
        past_key_values: JointCache,
        encoder_outputs: BaseModelOutput | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Return averaged log-probabilities [rows, 1, vocabulary]; the cache holds the encoder states."""
        each = len(decoder_input_ids) // len(past_key_values.joint)
        found, hidden = [], []
        for bart, cache, states, mask in zip(
            self.barts, past_key_values.caches, past_key_values.joint.states, past_key_values.joint.masks, strict=True
        ):
            shape = states.new_empty(1).expand(len(decoder_input_ids), states.shape[1], 1)
            output = bart(
                decoder_input_ids=decoder_input_ids,
                encoder_outputs=BaseModelOutput(last_hidden_state=shape),
                attention_mask=mask.repeat_interleave(each, 0),
                past_key_values=cache,
                use_cache=True,
                output_hidden_states=True,
            )
            found.append(output.logits.float().log_softmax(-1))
            hidden.append(normalize(output.decoder_hidden_states[-1].float(), dim=-1))
        stacked = torch.stack(found)
        if self.average == "probabilities":
            joined = stacked.logsumexp(0) - math.log(len(found))
        else:
            joined = stacked.mean(0).log_softmax(-1)
        # Side by side, so that their cosine is the mean of the members'.
        return Seq2SeqLMOutput(
            logits=joined, past_key_values=past_key_values, decoder_hidden_states=(torch.cat(hidden, -1),)
        )


class JointCache:
    """A cache for each member, which generate() asks for the length of the captions and for another order of beams."""

    is_compileable = False

    def __init__(self, barts: Sequence[Any], joint: JointStates, longest: int | None = None) -> None:
        self.joint = joint
        self.caches: list[SharedStatesCache] = [
            shared_states_cache(bart, states, longest) for bart, states in zip(barts, joint.states, strict=True)
        ]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens so far."""
        length: int = self.caches[0].get_seq_length(layer_idx)
        return length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Put the rows of every member's cache in the order of `beam_idx` [rows]."""
        for cache in self.caches:
            cache.reorder_cache(beam_idx)


def check_tokenizer(first: str, one: Captioner, name: str, other: Captioner) -> None:
    """Check that two captioners of these names read and write the same tokens.

    Raises:
        ValueError: naming what differs.
    """
    words, others = one.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    if words != others:
        differing = len(words.items() ^ others.items())
        raise ValueError(
            f"{name!r} has another tokenizer than {first!r}: found {len(others)} tokens, expected its {len(words)} "
            f"({differing} entries differ)"
        )
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        found, expected = getattr(other.tokenizer, token), getattr(one.tokenizer, token)
        if found != expected:
            raise ValueError(f"{name!r}: found {token} {found}, expected {expected} as {first!r} has")
    start, expected = (member.bart.config.decoder_start_token_id for member in (other, one))
    if start != expected:
        raise ValueError(f"{name!r}: found decoder_start_token_id {start}, expected {expected} as {first!r} has")
