"""Searches that transformers no longer has: diverse beam search and contrastive search.

Both advance all rows of a batch by one decoder step at a time, with the encoder's keys and values kept once a clip.
They choose tokens by scores that favour variety, and sum up the model's own log-likelihoods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..settings import BeamConfig

Limit = Callable[[Tensor, Tensor], Tensor]  # from ids [rows, steps] and scores [rows, vocabulary] to scores


class Decoder(Protocol):
    """The model that a search asks for the next tokens."""

    def __call__(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Append tokens [rows, n], and predict the next ones.

        Returns:
            log-probabilities of the next token [rows, vocabulary], and last states [rows, n, width].
        """

    def reorder(self, rows: Tensor) -> None:
        """Continue from other rows [rows]."""


@dataclass(frozen=True)
class Prompt:
    """The beginning of every caption, and the tokens that may follow and that end it.

    Attributes:
        tokens: [steps], the same for each of `clips` clips.
        limit: sets the scores of forbidden tokens to -inf, after `max_tokens` those of all but EOS.
        eos: ends a caption.
        pad: fills up the captions that ended.
    """

    tokens: Tensor
    clips: int
    limit: Limit
    eos: int
    pad: int


@dataclass(frozen=True)
class Found:
    """Sequences [rows, steps] from the start token on, their summed log-likelihoods and tokens after BOS [rows]."""

    ids: Tensor
    summed: Tensor
    tokens: Tensor


class _Group:
    """The beams of one group of every clip: n that run and the n best that ended."""

    def __init__(self, prompt: Prompt, beams: int) -> None:
        self.eos, self.pad = prompt.eos, prompt.pad
        self.running = prompt.tokens.expand(prompt.clips, beams, -1)
        self.summed = torch.full((prompt.clips, beams), -torch.inf, device=prompt.tokens.device)
        self.summed[:, 0] = 0.0  # all are alike before the first word
        self.ended = self.running
        self.values = torch.full_like(self.summed, -torch.inf)  # mean log-likelihood of what ended, BOS counted
        self.ended_sum = self.values
        self.steps = torch.ones_like(self.summed, dtype=torch.long)

    @property
    def full(self) -> Tensor:
        """[clips], true where as many ended as there are beams: the search is over."""
        return self.values.isfinite().all(1)

    def extend(self, log_probs: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the next tokens by log_probs [clips, n, vocabulary] minus the penalty [clips, vocabulary].

        Returns:
            tokens and the beams that they follow, each [clips, n].
        """
        beams, words = log_probs.shape[1:]
        sums = (self.summed[:, :, None] + log_probs).flatten(1)
        # Twice as many as beams: if the better half ends, the other half goes on.
        order = (sums - penalty.repeat(1, beams)).topk(2 * beams, 1).indices
        sums, parents, tokens = sums.gather(1, order), order // words, order % words
        ids = torch.cat([_take(self.running, parents), tokens[:, :, None]], 2)
        ends = tokens == self.eos
        self._collect(ids, sums.masked_fill(~ends, -torch.inf)[:, :beams])
        stay = (ends * 2 * beams + torch.arange(2 * beams, device=ends.device)).argsort(1)[:, :beams]
        self.running, self.summed = _take(ids, stay), sums.gather(1, stay).masked_fill(ends.gather(1, stay), -torch.inf)
        return tokens.gather(1, stay), parents.gather(1, stay)

    def _collect(self, ids: Tensor, sums: Tensor) -> None:
        """Keep the best of the captions that ended before or end now; add none once the group is full."""
        beams, steps = sums.shape[1], ids.shape[2] - 1
        values = (sums / steps).masked_fill(self.full[:, None], -torch.inf)
        padded = torch.nn.functional.pad(self.ended, (0, 1), value=self.pad)
        values, best = torch.cat([self.values, values], 1).topk(beams, 1)
        self.ended = _take(torch.cat([padded, ids[:, :beams]], 1), best)
        self.ended_sum = torch.cat([self.ended_sum, sums], 1).gather(1, best)
        self.steps = torch.cat([self.steps, torch.full_like(self.steps, steps)], 1).gather(1, best)
        self.values = values


def diverse_beam_search(decoder: Decoder, prompt: Prompt, beam: BeamConfig) -> Found:
    """Search with groups of beams that differ: diverse beam search with Hamming diversity (arXiv 1610.02424).

    Groups of beams are extended one after the other; a token costs a group `diversity_penalty` for each beam of the
    groups before it that has just taken the same. A group is done when `beams / groups` captions of it ended.

    Args:
        decoder: its rows are the beams of the groups of the clips, in that order.

    Returns:
        The best caption of each group, [clips * groups] rows.
    """
    clips, each = prompt.clips, beam.beams // beam.groups
    found = [_Group(prompt, each) for _ in range(beam.groups)]
    log_probs, _ = decoder(prompt.tokens.expand(clips * beam.beams, -1))
    for length in range(len(prompt.tokens), beam.max_tokens + 1):
        ids = torch.stack([group.running for group in found], 1).flatten(0, 2)
        allowed = prompt.limit(ids, log_probs).view(clips, beam.groups, each, -1)
        taken = torch.zeros_like(allowed[:, 0, 0])
        tokens, parents = [], []
        for number, group in enumerate(found):
            searching = ~group.full
            token, parent = group.extend(allowed[:, number], beam.diversity_penalty * taken)
            taken.scatter_add_(1, token, searching[:, None].expand_as(token).to(taken.dtype))
            tokens.append(token)
            parents.append(parent + number * each)
        if all(bool(group.full.all()) for group in found) or length == beam.max_tokens:
            break
        first = beam.beams * torch.arange(clips, device=ids.device)[:, None]
        decoder.reorder((torch.cat(parents, 1) + first).flatten())
        log_probs, _ = decoder(torch.cat(tokens, 1).view(-1, 1))
    best = [
        torch.stack([getattr(group, name)[:, 0] for group in found], 1).flatten(0, 1)
        for name in ("ended", "ended_sum", "steps")
    ]
    return Found(best[0], best[1], best[2] - 1)


def contrastive_search(decoder: Decoder, prompt: Prompt, beam: BeamConfig) -> Found:
    """Search by contrast (arXiv 2202.06417): take a likely token whose state is unlike those before it.

    Of the `top_k` likeliest tokens the one with the highest (1 - alpha) * probability - alpha * similarity is taken,
    where alpha is `penalty_alpha` and the similarity is the highest cosine between the decoder state that the token
    leads to and the states so far.

    Args:
        decoder: it has `top_k` rows a clip, one for each token that is tried.

    Returns:
        One caption a clip.
    """
    clips, top_k, alpha = prompt.clips, beam.top_k, beam.penalty_alpha
    ids = prompt.tokens.expand(clips, -1)
    log_probs, states = decoder(prompt.tokens.expand(clips * top_k, -1))
    log_probs, context = log_probs[::top_k], normalize(states[::top_k].float(), dim=-1)
    summed = torch.zeros(clips, device=ids.device)
    tokens, open_ = torch.zeros_like(summed, dtype=torch.long), torch.ones_like(summed, dtype=torch.bool)
    first = torch.arange(clips, device=ids.device)
    while ids.shape[1] <= beam.max_tokens and bool(open_.any()):
        likeliest = prompt.limit(ids, log_probs).softmax(-1).topk(top_k, 1)
        following, states = decoder(likeliest.indices.view(-1, 1))
        states = normalize(states.float(), dim=-1).view(clips, top_k, -1)
        similarity = (states @ context.transpose(1, 2)).amax(2)
        scores = (1 - alpha) * likeliest.values - alpha * similarity
        chosen = scores.masked_fill(likeliest.values == 0, -torch.inf).argmax(1)
        token = likeliest.indices[first, chosen]
        summed += torch.where(open_, log_probs[first, token], 0.0)
        tokens += open_
        ids = torch.cat([ids, token.where(open_, prompt.pad)[:, None]], 1)
        open_ = open_ & (token != prompt.eos)
        context = torch.cat([context, states[first, chosen, None]], 1)
        rows = first * top_k + chosen
        log_probs = following[rows]
        decoder.reorder(rows.repeat_interleave(top_k))
    return Found(ids, summed, tokens)


def _take(ids: Tensor, rows: Tensor) -> Tensor:
    """Take rows [clips, n] of ids [clips, beams, steps]."""
    return ids.gather(1, rows[:, :, None].expand(-1, -1, ids.shape[2]))
