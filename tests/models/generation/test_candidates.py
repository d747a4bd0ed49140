"""Candidates: scores from the sampling pass, independence of the batch, limits."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.captioner.model import Captioner
from models.captioner.shared_cross_attention import shared_states_cache
from models.generation import candidates as generation
from models.generation.candidates import Candidate, Decoding, beam_search, encoded_batches, propose_clips
from models.generation.logits_processors import ForceFirst, InverseTransformSampler
from models.settings import BeamConfig, SamplingConfig

Clips = tuple[list[np.ndarray], np.ndarray]
SAMPLING = SamplingConfig(candidates=6, temperature=1.0, top_p=0.95, min_tokens=4, max_tokens=14)
BEAM = BeamConfig(beams=4, min_tokens=4, max_tokens=12)


def sample_clips(
    captioner: Captioner, codes: list[np.ndarray], audio: np.ndarray, sampling: SamplingConfig, seed: int
) -> list[list[Candidate]]:
    return propose_clips(captioner, codes, audio, Decoding(sampling, BEAM, seed)).sampled


def strategy(**changes: float) -> SamplingConfig:
    return SAMPLING.model_copy(update=changes)


STRATEGIES = {
    "cold": strategy(temperature=0.3),
    "top_k": strategy(top_k=5),
    "min_p": strategy(min_p=0.1),
    "typical_p": strategy(typical_p=0.6),
    "epsilon_cutoff": strategy(epsilon_cutoff=0.02),
    "repetition_penalty": strategy(repetition_penalty=1.5),
}


def assert_same(found: list[Candidate], expected: list[Candidate]) -> None:
    assert [(c.text, c.tokens) for c in found] == [(c.text, c.tokens) for c in expected]
    assert [c.decoder_score for c in found] == pytest.approx([c.decoder_score for c in expected], abs=1e-4)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [2, 2, 1]])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_clip_has_the_same_captions_in_any_batch(
    captioner: Captioner,
    clips: Clips,
    alone: list[tuple[list[Candidate], list[Candidate]]],
    order: list[int],
    batch_size: int,
) -> None:
    codes, audio = [clips[0][row] for row in order], clips[1][order]
    proposed = propose_clips(captioner, codes, audio, Decoding(SAMPLING, BEAM, 3), batch_size)
    for at, row in enumerate(order):
        assert_same(proposed.sampled[at], alone[row][0])
        assert_same(proposed.searched[at], alone[row][1])


@pytest.fixture(scope="module")
def alone(captioner: Captioner, clips: Clips) -> list[tuple[list[Candidate], list[Candidate]]]:
    """Each clip's samples and beam, with no other clip beside it."""
    found = []
    for row in range(len(clips[0])):
        _, states, mask = next(encoded_batches(captioner, clips[0][row : row + 1], clips[1][row : row + 1], 1))
        sampled = generation.sample(captioner, states, mask, SAMPLING, 3)[0]
        found.append((sampled, beam_search(captioner, states, mask, BEAM)))
    return found


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_do_not_depend_on_the_batch(captioner: Captioner, clips: Clips, name: str) -> None:
    decoding = Decoding(STRATEGIES[name], BEAM, 1)
    together, apart = (propose_clips(captioner, *clips, decoding, size).sampled for size in (5, 1))
    plain = sample_clips(captioner, *clips, SAMPLING, seed=1)
    for found, expected in zip(together, apart, strict=True):
        assert_same(found, expected)
    assert [[c.text for c in clip] for clip in together] != [[c.text for c in clip] for clip in plain]


def test_a_cache_of_one_shape_changes_nothing(
    captioner: Captioner, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sample_clips(captioner, *clips, SAMPLING, seed=2)
    caches: list[Any] = []
    original = generation._cache

    def recorded(*args: Any) -> Any:
        caches.append(original(*args))
        return caches[-1]

    monkeypatch.setattr(generation, "_cache", recorded)
    found = sample_clips(captioner, *clips, SAMPLING.model_copy(update={"static_cache": True}), seed=2)
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    assert {layer.keys.shape[2] for layer in caches[0].self_attention_cache.layers} == {SAMPLING.max_tokens}


def test_more_candidates_keep_the_first_ones(captioner: Captioner, clips: Clips) -> None:
    few = sample_clips(captioner, *clips, SAMPLING, seed=0)
    many = sample_clips(captioner, *clips, SAMPLING.model_copy(update={"candidates": 12}), seed=0)
    for short, long in zip(few, many, strict=True):
        assert {c.text for c in short} <= {c.text for c in long}


def test_seed_changes_and_repeats(captioner: Captioner, clips: Clips) -> None:
    first, again, other = (sample_clips(captioner, *clips, SAMPLING, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def teacher_forced(captioner: Captioner, states: Tensor, mask: Tensor, ids: Tensor) -> tuple[str, int, float]:
    """Of the very tokens: text, their number and mean log-probability, EOS counted and BOS not, unbent."""
    tokens = ids[1:]
    ends = (tokens == captioner.tokenizer.eos_token_id).nonzero()
    tokens = tokens[: int(ends[0]) + 1] if len(ends) else tokens
    log_probs = captioner.caption_logits(states, mask, tokens[None]).log_softmax(-1)[0]
    score = float(log_probs.gather(1, tokens[:, None])[1:].mean())
    return captioner.tokenizer.decode(tokens, skip_special_tokens=True).strip(), len(tokens) - 1, score


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The tokens [rows, steps] of every call of generate()."""
    found: list[Tensor] = []
    original = generation._generate

    def recorded(*args: Any, **options: Any) -> Any:
        out = original(*args, **options)
        found.append(out if isinstance(out, Tensor) else out.sequences)
        return out

    monkeypatch.setattr(generation, "_generate", recorded)
    return found


@torch.no_grad()
@pytest.mark.parametrize("name", STRATEGIES)
def test_decoder_score_is_the_teacher_forced_one(
    captioner: Captioner, clips: Clips, generated: list[Tensor], name: str
) -> None:
    _, states, mask = next(encoded_batches(captioner, *clips, 16))
    drawn = generation.sample(captioner, states, mask, STRATEGIES[name], seed=0)
    for row, candidates in enumerate(drawn):
        found = {c.text: c for c in candidates}
        for ids in generated[0][row * 6 : row * 6 + 6]:
            text, tokens, score = teacher_forced(captioner, states[row, None], mask[row, None], ids)
            assert found[text].tokens == tokens
            assert found[text].decoder_score == pytest.approx(score, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("max_tokens", [7, 30])
def test_beams_score_is_the_teacher_forced_one(
    captioner: Captioner, clips: Clips, generated: list[Tensor], beams: int, max_tokens: int
) -> None:
    _, states, mask = next(encoded_batches(captioner, *clips, 16))
    config = BeamConfig(beams=beams, min_tokens=4, max_tokens=max_tokens)
    for row, one in enumerate(beam_search(captioner, states, mask, config)):
        text, tokens, score = teacher_forced(captioner, states[row, None], mask[row, None], generated[0][row])
        assert (one.text, one.tokens) == (text, tokens)
        assert one.decoder_score == pytest.approx(score, abs=1e-4)


def test_limits(captioner: Captioner, clips: Clips) -> None:
    for candidates in sample_clips(captioner, *clips, SAMPLING, seed=0):
        for candidate in candidates:
            assert 1 <= candidate.tokens <= SAMPLING.max_tokens - 1  # beside start token and BOS, EOS of what is cut
        assert len({c.text for c in candidates}) == len(candidates)


def test_captions_with_the_same_words_are_one_candidate() -> None:
    drawn = [("A dog barks.", -1.0), (".", -0.1), ("rain", -2.0), ("a dog barks", -0.5), ("a dog, barks", -0.7)]
    found = generation._distinct([Candidate(text, score, 4) for text, score in drawn])
    assert [(c.text, c.decoder_score) for c in found] == [("a dog barks", -0.5), ("rain", -2.0)]
    assert [c.text for c in generation._distinct([Candidate("...", -1.0, 2), Candidate("!", -2.0, 2)])] == ["..."]


def test_distribution_is_the_models(captioner: Captioner, clips: Clips) -> None:
    """First words drawn at temperature 1 without truncation come as often as the model says."""
    draws = 16_000
    _, states, mask = next(encoded_batches(captioner, clips[0][:1], clips[1][:1], 1))
    uniforms = torch.rand(draws, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    processors = [ForceFirst(0), InverseTransformSampler(uniforms)]
    with torch.inference_mode():
        cache = shared_states_cache(captioner.bart, states)
        probabilities = captioner.caption_logits(states, mask, torch.tensor([[0, 2]]))[0, 1].softmax(-1)
        ids = generation._generate(captioner, cache, mask, draws, processors, max_length=3)
    counts = torch.bincount(ids[:, 2], minlength=len(probabilities)) / draws
    assert float((counts - probabilities).abs().sum()) / 2 < 0.05  # total variation


def beams_of(captioner: Captioner, clips: Clips, beam: BeamConfig) -> list[Candidate]:
    return [one for (one,) in propose_clips(captioner, *clips, Decoding(SAMPLING, beam, 0)).searched]


def test_beam_is_at_least_as_likely_as_greedy(captioner: Captioner, clips: Clips) -> None:
    wide, greedy = (beams_of(captioner, clips, BEAM.model_copy(update={"beams": beams})) for beams in (4, 1))
    assert np.mean([c.decoder_score for c in wide]) >= np.mean([c.decoder_score for c in greedy])
