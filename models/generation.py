"""Candidate captions: nucleus sampling with the decoder score from the sampling pass itself, and beam search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_outputs import BaseModelOutput

from models.captioner import Captioner
from models.settings import BeamConfig, SamplingConfig


@dataclass(frozen=True)
class Candidate:
    """A caption and its decoder_score: mean log-likelihood a token, EOS counted and BOS not."""

    text: str
    decoder_score: float
    tokens: int


class _ScoreRecorder(LogitsProcessor):
    """Sums the model's own log-likelihood of the chosen tokens, before any processor bends it.

    Standing first, it sees at every step the token that was chosen at the last one.
    """

    def __init__(self, rows: int, eos: int, device: torch.device) -> None:
        self.summed = torch.zeros(rows, device=device)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.open = torch.ones(rows, dtype=torch.bool, device=device)
        self.eos = eos
        self.previous: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.count(input_ids)
        # The step behind decoder_start yields BOS, which is not scored.
        self.previous = scores.float().log_softmax(-1) if input_ids.shape[1] > 1 else None
        return scores

    def count(self, input_ids: Tensor) -> None:
        """Add the last token of each row that had not ended before it."""
        if self.previous is not None:
            chosen = self.previous.gather(1, input_ids[:, -1:])[:, 0]
            self.summed += torch.where(self.open, chosen, 0.0)
            self.tokens += self.open
            self.open = self.open & (input_ids[:, -1] != self.eos)


class _ForceFirst(LogitsProcessor):
    """BART was trained with BOS as every caption's first token."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] > 1:
            return scores
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.token] = 0.0
        return forced


class _InverseTransformSampler(LogitsProcessor):
    """Draws each row's token from its own stream of uniforms, by the inverse of the cumulative distribution.

    A row's draw so depends on its clip and candidate number alone, not on what else is in the batch.
    """

    def __init__(self, uniforms: Tensor) -> None:
        self.uniforms = uniforms  # [rows, steps]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        cumulative = scores.double().softmax(-1).cumsum(-1)
        # Scaled by the sum, so that rounding cannot push a draw past the last token with any probability.
        drawn = self.uniforms[:, input_ids.shape[1] - 1, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, drawn, right=True).clamp_max(scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def _generate(captioner: Captioner, states: Tensor, mask: Tensor, processors: LogitsProcessorList,
              **options: int | bool) -> Tensor:  # fmt: skip
    return captioner.bart.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        attention_mask=mask,
        logits_processor=processors,
        **options,
    )


@torch.inference_mode()
def sample(captioner: Captioner, states: Tensor, mask: Tensor, sampling: SamplingConfig, seed: int
           ) -> list[list[Candidate]]:  # fmt: skip
    """Draw `sampling.candidates` captions for each of B encoded clips, duplicates removed.

    The random streams belong to (seed, candidate number), so a clip gets the same candidates alone and in any batch.

    Args:
        states: [B, T, width] encoder states, computed once a clip.
        mask: [B, T].
    """
    number, tokenizer = sampling.candidates, captioner.tokenizer
    rows = len(states) * number
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(number, sampling.max_tokens, generator=generator, dtype=torch.float64)
    recorder = _ScoreRecorder(rows, tokenizer.eos_token_id, states.device)
    processors = LogitsProcessorList([recorder, _ForceFirst(tokenizer.bos_token_id)])
    processors += _constraints(captioner, sampling.min_tokens, sampling.no_repeat_ngram)
    processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    processors.append(_InverseTransformSampler(uniforms.to(states.device).repeat(len(states), 1)))
    ids = _generate(captioner, states.repeat_interleave(number, 0), mask.repeat_interleave(number, 0), processors,
                    max_length=sampling.max_tokens, do_sample=False, num_beams=1)  # fmt: skip
    recorder.count(ids)
    scores = (recorder.summed / recorder.tokens.clamp_min(1)).tolist()
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    all_candidates = [Candidate(text.strip(), score, tokens)
                      for text, score, tokens in zip(texts, scores, recorder.tokens.tolist(), strict=True)]  # fmt: skip
    return [_distinct(all_candidates[at : at + number]) for at in range(0, rows, number)]


@torch.inference_mode()
def beam_search(captioner: Captioner, states: Tensor, mask: Tensor, beam: BeamConfig) -> list[Candidate]:
    """The best beam of each of B encoded clips, with the decoder_score of a teacher-forced pass."""
    processors = LogitsProcessorList([_ForceFirst(captioner.tokenizer.bos_token_id)])
    processors += _constraints(captioner, beam.min_tokens, beam.no_repeat_ngram)
    ids = _generate(captioner, states, mask, processors,
                    max_length=beam.max_tokens, do_sample=False, num_beams=beam.beams, early_stopping=True)  # fmt: skip
    texts = [text.strip() for text in captioner.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    scores = captioner.log_likelihood(states, mask, texts).tolist()
    tokens = (captioner.labels(texts) >= 0).sum(1) - 1
    return [Candidate(*row) for row in zip(texts, scores, tokens.tolist(), strict=True)]


def encoded_batches(
    captioner: Captioner, codes: Sequence[np.ndarray], audio_embeddings: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Encode clips once each, batched by length; yields (rows, states, mask)."""
    order = np.argsort([len(clip) for clip in codes], kind="stable")
    device = captioner.mcm_head.weight.device
    for at in range(0, len(order), batch_size):
        rows = order[at : at + batch_size]
        batch, lengths = captioner.pad_codes([codes[row] for row in rows])
        with torch.inference_mode():
            states, mask = captioner.encode(batch, lengths, torch.from_numpy(audio_embeddings[rows]).to(device))
        yield rows, states, mask


def propose(
    captioners: dict[str, Captioner],
    codes: Sequence[np.ndarray],
    audio_embeddings: dict[str, np.ndarray],
    sampling: SamplingConfig,
    beam: BeamConfig,
    seed: int,
) -> dict[str, list[list[Candidate]]]:
    """What captioners say of each of N clips: what was sampled under `<name>`, the best beam under `<name>/beam`.

    Args:
        codes: [T_i, Q] of each clip.
        audio_embeddings: by captioner, [N, D].
    """
    proposed: dict[str, list[list[Candidate]]] = {}
    for name, captioner in captioners.items():
        proposed[name], proposed[f"{name}/beam"] = propose_clips(
            captioner, codes, audio_embeddings[name], sampling, beam, seed
        )
    return proposed


def propose_clips(
    captioner: Captioner,
    codes: Sequence[np.ndarray],
    audio_embeddings: np.ndarray,
    sampling: SamplingConfig,
    beam: BeamConfig,
    seed: int,
    batch_size: int = 16,
) -> tuple[list[list[Candidate]], list[list[Candidate]]]:
    """`sample` and `beam_search` from one encoder pass over any number of clips, in their order."""
    sampled: list[list[Candidate]] = [[] for _ in codes]
    beams: list[list[Candidate]] = [[] for _ in codes]
    for rows, states, mask in encoded_batches(captioner, codes, audio_embeddings, batch_size):
        draws, best = sample(captioner, states, mask, sampling, seed), beam_search(captioner, states, mask, beam)
        for row, draw, one in zip(rows, draws, best, strict=True):
            sampled[row], beams[row] = draw, [one]
    return sampled, beams


def _constraints(captioner: Captioner, min_tokens: int, no_repeat_ngram: int) -> list[LogitsProcessor]:
    eos, device = captioner.tokenizer.eos_token_id, str(captioner.mcm_head.weight.device)
    constraints: list[LogitsProcessor] = []
    if min_tokens:
        constraints.append(MinLengthLogitsProcessor(min_tokens, eos, device=device))
    if no_repeat_ngram:
        constraints.append(NoRepeatNGramLogitsProcessor(no_repeat_ngram))
    return constraints


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """One candidate a text, blank texts left out unless there is nothing else."""
    by_text: dict[str, Candidate] = {}
    for candidate in candidates:
        by_text.setdefault(candidate.text, candidate)
    return [candidate for text, candidate in by_text.items() if text] or candidates[:1]
