"""Candidate captions by sampling and by search, with the decoder score from the pass that chose the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from ..captioner.model import Captioner
from ..captioner.shared_cross_attention import shared_states_cache
from ..normal_form import normal_form
from ..settings import BeamConfig, SamplingConfig
from .diverse_search import Prompt, contrastive_search, diverse_beam_search
from .logits_processors import EndAt, ForceFirst, InverseTransformSampler, ScoreRecorder, limits, warpers
from .token_ensemble import JointCache, JointCaptioner, JointStates

BATCH = 16  # clips
CaptionSource = Captioner | JointCaptioner
States = Tensor | JointStates  # JointStates of a JointCaptioner


@dataclass(frozen=True)
class Candidate:
    """A caption, its decoder_score (mean log-likelihood of a token, EOS counted and BOS not) and number of tokens.

    A caption that was cut at `max_tokens` counts EOS, too: n tokens t_1 ... t_n have the decoder_score
    (log p(t_1) + ... + log p(t_n) + log p(EOS | t_1 ... t_n)) / (n + 1), whether or not the model had ended there.
    """

    text: str
    decoder_score: float
    tokens: int


@dataclass(frozen=True)
class Decoding:
    """The settings that candidates are made with: sampling and its seed, and a search."""

    sampling: SamplingConfig
    beam: BeamConfig
    seed: int


@dataclass(frozen=True)
class Proposed:
    """The candidates of one captioner, clip by clip: those of `sample`, and those of `search`."""

    sampled: list[list[Candidate]]
    searched: list[list[Candidate]]


@torch.inference_mode()
def sample(
    captioner: CaptionSource, states: States, mask: Tensor, sampling: SamplingConfig, seed: int
) -> list[list[Candidate]]:
    """Draw `sampling.candidates` captions for each of B encoded clips, duplicates removed.

    The random streams belong to (seed, candidate number), so a clip gets the same candidates alone and in any batch, as
    far as rounding goes: scores within 1e-4, and other words only where a draw falls that near between two tokens.

    Args:
        states: [B, T, width] encoder states, computed once a clip; of a `JointCaptioner` those of every member.
        mask: [B, T]; of a `JointCaptioner` the first member's.
    """
    number = sampling.candidates
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(number, sampling.max_tokens, generator=generator, dtype=torch.float64)
    sampler = InverseTransformSampler(uniforms.to(states.device).repeat(len(states), 1))
    end = _end(captioner, sampling)
    processors = [*_limits(captioner, sampling, states.device), end, *warpers(sampling), sampler]
    cache = _cache(captioner, states, sampling.max_tokens if sampling.static_cache else None)
    drawn = _one_path(captioner, cache, mask, number, processors, end.length + 1)
    return [_distinct(drawn[at : at + number]) for at in range(0, len(drawn), number)]


class StepDecoder:
    """The decoder of a captioner for B encoded clips with `each` rows of captions, one step at a time."""

    def __init__(self, captioner: CaptionSource, states: States, mask: Tensor, each: int) -> None:
        self.bart, self.cache = captioner.bart, _cache(captioner, states)
        self.seen = {"encoder_outputs": _shape(mask, each), "attention_mask": mask.repeat_interleave(each, 0)}

    def __call__(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Append tokens [rows, n], and predict the next ones.

        Returns:
            log-probabilities of the next token [rows, vocabulary], and last states [rows, n, width].
        """
        states = []
        for column in tokens.unbind(1):  # rows of one clip share its keys and values for one token at a time
            output = self.bart(
                decoder_input_ids=column[:, None],
                past_key_values=self.cache,
                use_cache=True,
                output_hidden_states=True,
                **self.seen,
            )
            states.append(output.decoder_hidden_states[-1])
        return output.logits[:, -1].float().log_softmax(-1), torch.cat(states, 1)

    def reorder(self, rows: Tensor) -> None:
        """Continue from other rows [rows], each of the same clip as before."""
        self.cache.reorder_cache(rows)


@torch.inference_mode()
def search(captioner: CaptionSource, states: States, mask: Tensor, beam: BeamConfig) -> list[list[Candidate]]:
    """Search captions for each of B encoded clips, without randomness.

    Args:
        states: [B, T, width] encoder states; of a `JointCaptioner` those of every member.
        mask: [B, T]; of a `JointCaptioner` the first member's.

    Returns:
        For each clip the best beam; of several groups the best of each (diverse beam search, duplicates removed); or
        with `penalty_alpha` the caption of contrastive search.
    """
    if beam.groups == 1 and not beam.penalty_alpha:
        return [[one] for one in beam_search(captioner, states, mask, beam)]
    (bos, eos), start = captioner.ends, captioner.bart.generation_config.decoder_start_token_id
    prompt = Prompt(
        torch.tensor([start, bos], device=states.device),
        clips=len(states),
        limit=LogitsProcessorList([*_limits(captioner, beam, states.device), _end(captioner, beam)]),
        eos=eos,
        pad=captioner.tokenizer.pad_token_id,
    )
    if beam.penalty_alpha:
        found = contrastive_search(StepDecoder(captioner, states, mask, beam.top_k), prompt, beam)
    else:
        found = diverse_beam_search(StepDecoder(captioner, states, mask, beam.beams), prompt, beam)
    candidates = _candidates(captioner, found.ids, found.summed, found.tokens)
    each = len(candidates) // prompt.clips
    return [_distinct(candidates[at : at + each]) for at in range(0, len(candidates), each)]


@torch.inference_mode()
def beam_search(captioner: CaptionSource, states: States, mask: Tensor, beam: BeamConfig) -> list[Candidate]:
    """Return the best beam of each of B encoded clips; one beam is greedy search.

    A clip has the same one alone and in any batch, as far as rounding goes (see `sample`): its beams are frozen once
    it is done.

    Args:
        states: [B, T, width] encoder states; of a `JointCaptioner` those of every member.
        mask: [B, T]; of a `JointCaptioner` the first member's.
    """
    end = _end(captioner, beam)
    processors = [*_limits(captioner, beam, states.device), end]
    if beam.beams == 1:
        return _one_path(captioner, _cache(captioner, states), mask, 1, processors, end.length + 1)
    found = _generate(
        captioner,
        _cache(captioner, states),
        mask,
        1,
        processors,
        max_length=end.length + 1,
        num_beams=beam.beams,
        early_stopping=True,
        length_penalty=1.0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    # What the beams sum up is the model's own log-likelihood: BOS is forced at no cost, and limits only forbid. The sum
    # was divided by the number of tokens with BOS.
    steps = (found.beam_indices >= 0).sum(1)
    summed = found.sequences_scores * steps
    if end.free and end.score is not None:  # the beams did not pay for an EOS that was forced; its scores are by beam
        last = found.beam_indices[:, -1].clamp_min(0).long()
        summed = summed + torch.where(steps == end.length, end.score[last], 0.0)
    return _candidates(captioner, found.sequences, summed, steps - 1)


def _one_path(
    captioner: CaptionSource, cache: Any, mask: Tensor, each: int, processors: list[LogitsProcessor], longest: int
) -> list[Candidate]:
    """Return a candidate for each of `each` rows a clip, with scores from the very pass that chose its tokens."""
    recorder = ScoreRecorder(len(mask) * each, captioner.tokenizer.eos_token_id, mask.device)
    ids = _generate(captioner, cache, mask, each, [recorder, *processors], max_length=longest, num_beams=1)
    recorder.count(ids)
    return _candidates(captioner, ids, recorder.summed, recorder.tokens)


def _generate(
    captioner: CaptionSource, cache: Any, mask: Tensor, each: int, processors: list[LogitsProcessor], **options: Any
) -> Any:
    return captioner.bart.generate(
        encoder_outputs=_shape(mask, each),
        attention_mask=mask.repeat_interleave(each, 0),
        past_key_values=cache,
        logits_processor=LogitsProcessorList(processors),
        do_sample=False,
        **options,
    )


def _shape(mask: Tensor, each: int) -> BaseModelOutput:
    """Stand in for encoder states: the cache holds what is attended to, only the numbers of rows and columns count."""
    return BaseModelOutput(
        last_hidden_state=mask.new_empty(1, dtype=torch.float32).expand(len(mask) * each, mask.shape[1], 1)
    )


def _cache(captioner: CaptionSource, states: States, longest: int | None = None) -> Any:
    if isinstance(states, JointStates):
        return JointCache(list(captioner.bart.barts), states, longest)
    return shared_states_cache(captioner.bart, states, longest)


def _limits(
    captioner: CaptionSource, config: SamplingConfig | BeamConfig, device: torch.device
) -> list[LogitsProcessor]:
    bos, eos = captioner.ends
    return [ForceFirst(bos), *limits(config.min_tokens, config.no_repeat_ngram, eos, device)]


def _end(captioner: CaptionSource, config: SamplingConfig | BeamConfig) -> EndAt:
    """Return the processor that ends captions of `max_tokens`, after them or by the last of them."""
    forced = isinstance(config, BeamConfig) and config.forced_eos
    return EndAt(config.max_tokens - forced, captioner.ends[1], free=forced)


def _candidates(captioner: CaptionSource, ids: Tensor, summed: Tensor, tokens: Tensor) -> list[Candidate]:
    texts = captioner.tokenizer.batch_decode(ids, skip_special_tokens=True)
    scores = (summed / tokens.clamp_min(1)).tolist()
    return [Candidate(text.strip(), *row) for text, *row in zip(texts, scores, tokens.tolist(), strict=True)]


def batches(codes: Sequence[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the numbers of clips of about the same length, up to `size` at a time."""
    order = np.argsort([len(clip) for clip in codes], kind="stable")
    for at in range(0, len(order), size):
        yield order[at : at + size]


def encoded_batches(
    captioner: Captioner, codes: Sequence[np.ndarray], audio_embeddings: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Encode clips once each, batched by length.

    Args:
        codes: [T_i, Q] of N clips.
        audio_embeddings: [N, D].

    Yields:
        row numbers of the clips, their states [B, R, width] and attention mask [B, R].
    """
    for rows in batches(codes, batch_size):
        yield rows, *encode_clips(captioner, codes, audio_embeddings, rows)


@torch.inference_mode()
def encode_clips(
    captioner: Captioner, codes: Sequence[np.ndarray], audio_embeddings: np.ndarray, rows: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Return the encoder states [B, R, width] of the clips in B rows of N, and their attention mask [B, R]."""
    batch, lengths = captioner.pad_codes([codes[row] for row in rows])
    return captioner.encode(batch, lengths, torch.from_numpy(audio_embeddings[rows]).to(batch.device))


def propose_clips(
    captioner: Captioner,
    codes: Sequence[np.ndarray],
    audio_embeddings: np.ndarray,
    decoding: Decoding,
    batch_size: int = BATCH,
) -> Proposed:
    """Sample and search captions of one captioner from one encoder pass over N clips.

    Args:
        codes: [T_i, Q] of each clip.
        audio_embeddings: [N, D].
    """
    proposed = Proposed([[] for _ in codes], [[] for _ in codes])
    for rows, states, mask in encoded_batches(captioner, codes, audio_embeddings, batch_size):
        found = decode(captioner, states, mask, decoding)
        for row, drawn, searched in zip(rows, found.sampled, found.searched, strict=True):
            proposed.sampled[row], proposed.searched[row] = drawn, searched
    return proposed


def decode(
    captioner: CaptionSource,
    states: States,
    mask: Tensor,
    decoding: Decoding,
    sampled: bool = True,
    searched: bool = True,
) -> Proposed:
    """Sample and search captions for each of B encoded clips, as far as they are wanted."""
    nothing: list[list[Candidate]] = [[] for _ in mask]
    return Proposed(
        sample(captioner, states, mask, decoding.sampling, decoding.seed) if sampled else nothing,
        search(captioner, states, mask, decoding.beam) if searched else nothing,
    )


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Keep one candidate of those with the same words, and those without words only if there is nothing else.

    It is the one of the highest decoder_score, as it is written, in the place of the first.
    """
    by_words: dict[str, Candidate] = {}
    for candidate in candidates:
        known = by_words.setdefault(normal_form(candidate.text), candidate)
        if candidate.decoder_score > known.decoder_score:
            by_words[normal_form(candidate.text)] = candidate
    return [candidate for words, candidate in by_words.items() if words] or candidates[:1]
