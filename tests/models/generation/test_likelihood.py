"""Every captioner scores all candidates from the encoder states that are there: the same scores, no second encoding."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from models.captioner.model import Captioner
from models.generation import likelihood
from models.generation.candidates import Decoding, encoded_batches
from models.generation.likelihood import log_likelihoods
from models.generation.pooling import pool
from models.generation.proposals import ClipInputs, propose
from models.settings import BeamConfig, SamplingConfig, TokenEnsembleConfig

from ..conftest import CAPTIONS

Clips = tuple[list[np.ndarray], np.ndarray]
DECODING = Decoding(SamplingConfig(candidates=3, max_tokens=10), BeamConfig(beams=2, max_tokens=10), 0)
TEXTS = [CAPTIONS[:3], ["rain"], [], [*CAPTIONS, "a dog", "wind"], ["a bell rings"]]


def expected(captioner: Captioner, clips: Clips, texts: list[list[str]]) -> list[dict[str, float]]:
    """Score every text alone, over its clip's own encoder states."""
    found = []
    for row, own in enumerate(texts):
        _, states, mask = next(encoded_batches(captioner, [clips[0][row]], clips[1][row, None], 1))
        found.append({text: float(captioner.log_likelihood(states, mask, [text])) for text in own})
    return found


@pytest.mark.parametrize(("rows", "tokens"), [(512, 10**6), (4, 3), (1, 1)])
def test_scores_are_those_of_each_text_alone_in_any_chunks(
    captioner: Captioner, clips: Clips, monkeypatch: pytest.MonkeyPatch, rows: int, tokens: int
) -> None:
    monkeypatch.setattr(likelihood, "TEXTS_AT_ONCE", rows)
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", tokens * captioner.bart.config.vocab_size)
    order, states, mask = next(encoded_batches(captioner, *clips, 16))
    found = log_likelihoods(captioner, states, mask, [TEXTS[row] for row in order])
    for row, scores in zip(order, found, strict=True):
        assert scores == pytest.approx(expected(captioner, clips, TEXTS)[row], abs=1e-4)


def test_all_candidates_are_scored_by_captioners_that_encode_a_clip_once(
    captioner: Captioner, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    other = deepcopy(captioner)
    for weight in other.bart.model.decoder.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    members = {"a": captioner, "b": other}
    encoded: list[int] = []
    original = Captioner.encode

    def counted(self: Captioner, codes: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoded.append(len(codes))
        return original(self, codes, *others)

    monkeypatch.setattr(Captioner, "encode", counted)
    inputs = ClipInputs(clips[0], dict.fromkeys(members, clips[1]))
    joint = {"joint": TokenEnsembleConfig(members=["a", "b"])}
    found = propose(members, inputs, DECODING, joint, scored_by=["a", "b"])
    assert sum(encoded) == 2 * len(clips[0])
    for clip in range(len(clips[0])):
        texts = [one.text for _, one in pool({name: of[clip] for name, of in found.candidates.items()})]
        for name, member in members.items():
            assert list(found.likelihoods[name][clip]) == texts
            drawn = {c.text: c.decoder_score for key in (name, f"{name}/beam") for c in found.candidates[key][clip]}
            others = [text for text in texts if text not in drawn]
            assert {text: found.likelihoods[name][clip][text] for text in texts if text in drawn} == drawn
            if clip == 3:
                assert others
                alone = expected(member, clips, [[], [], [], others, []])[clip]
                assert {text: found.likelihoods[name][clip][text] for text in others} == pytest.approx(alone, abs=1e-4)
    assert found.likelihoods["a"] != found.likelihoods["b"]


def test_who_does_not_propose_can_score(captioner: Captioner, clips: Clips) -> None:
    members = {"a": captioner, "b": captioner}
    inputs = ClipInputs(clips[0], dict.fromkeys(members, clips[1]))
    found = propose(members, inputs, DECODING, caption_sources=["a"], scored_by=["b"])
    assert list(found.candidates) == ["a", "a/beam"]
    assert list(found.likelihoods) == ["b"]
    assert all(found.likelihoods["b"])
    assert not propose(members, inputs, DECODING, caption_sources=["a"]).likelihoods


def test_only_what_is_asked_for_is_drawn(captioner: Captioner, clips: Clips) -> None:
    members = {"a": captioner, "b": captioner}
    inputs = ClipInputs(clips[0], dict.fromkeys(members, clips[1]))
    whole = propose(members, inputs, DECODING).candidates
    parts = propose(members, inputs, DECODING, caption_sources=["a/samples", "b/beam"]).candidates
    assert parts["a"] == whole["a"]
    assert parts["b/beam"] == whole["b/beam"]
    assert not any(parts["a/beam"] + parts["b"])
