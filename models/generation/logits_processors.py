"""Logits processors for transformers' generate(), which choose tokens and record their scores."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    EpsilonLogitsWarper,
    LogitsProcessor,
    MinLengthLogitsProcessor,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from ..settings import SamplingConfig


class ScoreRecorder(LogitsProcessor):
    """Processor that sums the model's own log-likelihoods of the chosen tokens, before others change them.

    Tokens are those after BOS, the first EOS included: log p(t_1) + ... + log p(t_n) + log p(EOS). For a caption that
    `EndAt` cuts, n is all that `max_tokens` has room for, and log p(EOS) that of ending there.

    It must be the first processor; at every step it sees the token that was chosen at the step before.
    """

    def __init__(self, rows: int, eos: int, device: torch.device) -> None:
        self.summed = torch.zeros(rows, device=device)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.open = torch.ones(rows, dtype=torch.bool, device=device)
        self.eos = eos
        self.previous: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.count(input_ids)
        # The step after decoder_start yields BOS, which is not scored.
        self.previous = scores.float().log_softmax(-1) if input_ids.shape[1] > 1 else None
        return scores

    def count(self, input_ids: Tensor) -> None:
        """Add the last token of each row that had not ended before it."""
        if self.previous is not None:
            chosen = self.previous.gather(1, input_ids[:, -1:])[:, 0]
            self.summed += torch.where(self.open, chosen, 0.0)
            self.tokens += self.open
            self.open = self.open & (input_ids[:, -1] != self.eos)


class ForceFirst(LogitsProcessor):
    """Processor that forces the first token of every caption, which BART was trained with: BOS."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] > 1:
            return scores
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.token] = 0.0
        return forced


class EndAt(LogitsProcessor):
    """Processor that ends every caption that has grown to `length` tokens, the start token counted: EOS must follow.

    EOS keeps its score, so that a caption that is cut pays for it as one that ends by itself does. With `free` it has
    the score 0, as transformers' `forced_eos_token_id` gives it, and `score` holds what the model gave it [rows].
    """

    def __init__(self, length: int, eos: int, free: bool = False) -> None:
        self.length, self.eos, self.free = length, eos, free
        self.score: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] < self.length:
            return scores
        ended = torch.full_like(scores, -torch.inf)
        self.score = scores[:, self.eos].clone()
        ended[:, self.eos] = 0.0 if self.free else self.score
        return ended


class InverseTransformSampler(LogitsProcessor):
    """Sampler of each row's token from its own uniform numbers, by the inverse of the cumulative distribution.

    So a draw depends on the row's clip and candidate number alone, not on what else is in the batch.

    Args:
        uniforms: [rows, steps], from 0 to 1.
    """

    def __init__(self, uniforms: Tensor) -> None:
        self.uniforms = uniforms

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        cumulative = scores.double().softmax(-1).cumsum(-1)
        # Scaled by the sum, so that rounding cannot push a draw past the last token with any probability.
        drawn = self.uniforms[:, input_ids.shape[1] - 1, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, drawn, right=True).clamp_max(scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def limits(min_tokens: int, no_repeat_ngram: int, eos: int, device: torch.device) -> list[LogitsProcessor]:
    """Return the processors that forbid tokens and leave the scores of the others as they are."""
    found: list[LogitsProcessor] = []
    if min_tokens:
        found.append(MinLengthLogitsProcessor(min_tokens, eos, device=str(device)))
    if no_repeat_ngram:
        found.append(NoRepeatNGramLogitsProcessor(no_repeat_ngram))
    return found


def warpers(sampling: SamplingConfig) -> list[LogitsProcessor]:
    """Return the processors that change the distribution of tokens, in the order of transformers' own generate()."""
    found: list[LogitsProcessor] = []
    if sampling.repetition_penalty != 1:
        # BART's start token is EOS: it stands first in every row, and does not count as a repetition.
        found.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty, prompt_ignore_length=1))
    found.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        found.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        found.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        found.append(MinPLogitsWarper(sampling.min_p))
    if sampling.typical_p < 1:
        found.append(TypicalLogitsWarper(sampling.typical_p))
    if sampling.epsilon_cutoff:
        found.append(EpsilonLogitsWarper(sampling.epsilon_cutoff))
    return found
