"""Candidates: scores from the sampling pass, independence of the batch, limits."""

import numpy as np
import pytest
import torch

from models import generation
from models.captioner import Captioner
from models.generation import Candidate, beam_search, encoded_batches, propose_clips
from models.settings import BeamConfig, SamplingConfig

Clips = tuple[list[np.ndarray], np.ndarray]
SAMPLING = SamplingConfig(candidates=6, temperature=1.0, top_p=0.95, min_tokens=4, max_tokens=14)
BEAM = BeamConfig(beams=4, min_tokens=4, max_tokens=12)


def sample_clips(
    captioner: Captioner, codes: list[np.ndarray], audio: np.ndarray, sampling: SamplingConfig, seed: int
) -> list[list[Candidate]]:
    return propose_clips(captioner, codes, audio, sampling, BEAM, seed)[0]


def test_a_clip_alone_and_in_a_batch_has_the_same_candidates(captioner: Captioner, clips: Clips) -> None:
    codes, audio = clips
    together = sample_clips(captioner, codes, audio, SAMPLING, seed=3)
    for row in range(len(codes)):
        alone = sample_clips(captioner, codes[row : row + 1], audio[row : row + 1], SAMPLING, seed=3)[0]
        assert [c.text for c in alone] == [c.text for c in together[row]]
        assert [c.decoder_score for c in alone] == pytest.approx([c.decoder_score for c in together[row]], abs=1e-4)


def test_more_candidates_keep_the_first_ones(captioner: Captioner, clips: Clips) -> None:
    few = sample_clips(captioner, *clips, SAMPLING, seed=0)
    many = sample_clips(captioner, *clips, SAMPLING.model_copy(update={"candidates": 12}), seed=0)
    for short, long in zip(few, many, strict=True):
        assert {c.text for c in short} <= {c.text for c in long}


def test_seed_changes_and_repeats(captioner: Captioner, clips: Clips) -> None:
    first, again, other = (sample_clips(captioner, *clips, SAMPLING, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@torch.no_grad()
def test_decoder_score_is_the_teacher_forced_one(
    captioner: Captioner, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the very tokens that were drawn: mean log-probability, EOS counted and BOS not, untempered."""
    drawn = []
    original = generation._generate
    monkeypatch.setattr(generation, "_generate", lambda *a, **k: drawn.append(original(*a, **k)) or drawn[-1])
    cold = SAMPLING.model_copy(update={"temperature": 0.3})
    for row in range(len(clips[0])):
        _, states, mask = next(encoded_batches(captioner, clips[0][row : row + 1], clips[1][row : row + 1], 1))
        found = {c.text: c for c in generation.sample(captioner, states, mask, cold, seed=0)[0]}
        for ids in drawn.pop():
            tokens = ids[1:]
            ends = (tokens == 2).nonzero()
            tokens = tokens[: int(ends[0]) + 1] if len(ends) else tokens
            log_probs = captioner.caption_logits(states, mask, tokens[None]).log_softmax(-1)[0]
            expected = float(log_probs.gather(1, tokens[:, None])[1:].mean())
            candidate = found[captioner.tokenizer.decode(tokens, skip_special_tokens=True).strip()]
            assert candidate.tokens == len(tokens) - 1
            assert candidate.decoder_score == pytest.approx(expected, abs=1e-4)


def test_limits(captioner: Captioner, clips: Clips) -> None:
    for candidates in sample_clips(captioner, *clips, SAMPLING, seed=0):
        for candidate in candidates:
            assert 1 <= candidate.tokens <= SAMPLING.max_tokens - 2
        assert len({c.text for c in candidates}) == len(candidates)


def test_distribution_is_the_models(captioner: Captioner, clips: Clips) -> None:
    """First words drawn at temperature 1 without truncation come as often as the model says."""
    draws = 16_000
    _, states, mask = next(encoded_batches(captioner, clips[0][:1], clips[1][:1], 1))
    uniforms = torch.rand(draws, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    processors = generation.LogitsProcessorList(
        [generation._ForceFirst(0), generation._InverseTransformSampler(uniforms)]
    )
    with torch.inference_mode():
        probabilities = captioner.caption_logits(states, mask, torch.tensor([[0, 2]]))[0, 1].softmax(-1)
        ids = generation._generate(
            captioner, states.repeat(draws, 1, 1), mask.repeat(draws, 1), processors, max_length=3, do_sample=False
        )
    counts = torch.bincount(ids[:, 2], minlength=len(probabilities)) / draws
    assert float((counts - probabilities).abs().sum()) / 2 < 0.05  # total variation


def beams_of(captioner: Captioner, clips: Clips, beam: BeamConfig) -> list[Candidate]:
    return [one for (one,) in propose_clips(captioner, *clips, SAMPLING, beam, seed=0)[1]]


def test_beam_is_at_least_as_likely_as_greedy(captioner: Captioner, clips: Clips) -> None:
    wide, greedy = (beams_of(captioner, clips, BEAM.model_copy(update={"beams": beams})) for beams in (4, 1))
    assert np.mean([c.decoder_score for c in wide]) >= np.mean([c.decoder_score for c in greedy])


def test_a_clips_beam_is_its_own_in_any_batch(captioner: Captioner, clips: Clips) -> None:
    codes, audio = clips
    together = beams_of(captioner, clips, BEAM)
    for row in range(len(codes)):
        _, states, mask = next(encoded_batches(captioner, codes[row : row + 1], audio[row : row + 1], 1))
        (alone,) = beam_search(captioner, states, mask, BEAM)
        assert (alone.text, alone.tokens) == (together[row].text, together[row].tokens)
