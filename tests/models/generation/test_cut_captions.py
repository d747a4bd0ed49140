"""A caption that is cut at `max_tokens` pays for the missing EOS, however it was found."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from models.captioner.model import Captioner
from models.generation import candidates as generation
from models.generation.candidates import Candidate, encoded_batches, sample, search
from models.generation.token_ensemble import JointCaptioner, JointStates
from models.settings import BeamConfig, SamplingConfig

from .test_diverse_search import Plain

Clips = tuple[list[np.ndarray], np.ndarray]
LONGEST = 9
WAYS: dict[str, SamplingConfig | BeamConfig] = {
    "sample": SamplingConfig(candidates=6, temperature=1.0, top_k=0, min_tokens=3, max_tokens=LONGEST),
    "greedy": BeamConfig(beams=1, min_tokens=3, max_tokens=LONGEST),
    "beam": BeamConfig(beams=4, min_tokens=3, max_tokens=LONGEST),
    "forced": BeamConfig(beams=4, min_tokens=3, max_tokens=LONGEST, forced_eos=True),
    "forced greedy": BeamConfig(beams=1, min_tokens=3, max_tokens=LONGEST, forced_eos=True),
    "diverse": BeamConfig(beams=4, groups=2, min_tokens=3, max_tokens=LONGEST),
    "contrastive": BeamConfig(beams=1, penalty_alpha=0.4, min_tokens=3, max_tokens=LONGEST),
}


@pytest.fixture
def endless(captioner: Captioner) -> Captioner:
    """A captioner that seldom ends."""
    model = deepcopy(captioner)
    model.bart.final_logits_bias[0, model.ends[1]] -= 2.5
    return model


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, list[Candidate]]]:
    """The tokens [rows, steps] and candidates of every search."""
    seen = []
    original = generation._candidates

    def recorded(captioner: Any, ids: Tensor, *sums: Tensor) -> list[Candidate]:
        seen.append((ids, original(captioner, ids, *sums)))
        return seen[-1][1]

    monkeypatch.setattr(generation, "_candidates", recorded)
    return seen


@torch.inference_mode()
@pytest.mark.parametrize("joint", [False, True], ids=["alone", "joint"])
@pytest.mark.parametrize("way", WAYS)
def test_the_score_is_that_of_every_step_and_of_ending(
    endless: Captioner, clips: Clips, found: list[tuple[Tensor, list[Candidate]]], way: str, joint: bool
) -> None:
    _, states, mask = next(encoded_batches(endless, *clips, 16))
    source: tuple[Any, Any] = endless, states
    if joint:
        source = JointCaptioner({"a": endless, "b": endless}, "probabilities"), JointStates([states] * 2, [mask] * 2)
    config = WAYS[way]
    if isinstance(config, SamplingConfig):
        sample(*source, mask, config, seed=0)
    else:
        search(*source, mask, config)
    ((ids, candidates),) = found
    eos, each, cut = endless.ends[1], len(ids) // len(states), 0
    longest = LONGEST - way.startswith("forced")  # without the start token
    for row, candidate in enumerate(candidates):
        tokens = ids[row, 1:].tolist()  # from BOS on
        tokens = tokens[: tokens.index(eos) + 1]
        plain = Plain(endless, states[row // each], mask[row // each])
        steps = [float(plain.read(tokens[:at])[0][tokens[at]]) for at in range(1, len(tokens))]
        assert candidate.tokens == len(steps)
        assert candidate.decoder_score == pytest.approx(sum(steps) / len(steps), abs=1e-4)
        assert len(tokens) <= longest
        cut += len(tokens) == longest
    assert cut, "some are cut here"


@torch.inference_mode()
@pytest.mark.parametrize("bias", [0.0, -2.5, 1.0])
def test_the_preset_is_enclaps_beam_search(
    endless: Captioner, clips: Clips, found: list[tuple[Tensor, list[Candidate]]], bias: float
) -> None:
    """As transformers' generate() searches by the generation config of BART, and at most 50 tokens."""
    bos, eos = endless.ends
    endless.bart.final_logits_bias[0, eos] += 2.5 + bias
    _, states, mask = next(encoded_batches(endless, *clips, 16))
    preset = BeamConfig.model_validate("enclap")
    search(endless, states, mask, preset)
    expected = endless.bart.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        attention_mask=mask,
        num_beams=4,
        do_sample=False,
        early_stopping=True,
        no_repeat_ngram_size=3,
        max_length=50,
        forced_bos_token_id=bos,
        forced_eos_token_id=eos,
    )
    assert found[0][0].tolist() == expected.tolist()
    if bias < 0:
        assert expected.shape[1] == 50, "some are cut here"
        assert set(expected[expected[:, -1] != endless.tokenizer.pad_token_id][:, -1].tolist()) == {eos}


@pytest.mark.parametrize(
    ("beam", "message"),
    [
        ("clap", "found 'clap', expected `enclap` or fields"),
        ({"beams": 4, "groups": 2, "forced_eos": True}, "forced_eos: is for beam search alone"),
        ({"beams": 1, "penalty_alpha": 0.5, "forced_eos": True}, "forced_eos: is for beam search alone"),
    ],
)
def test_what_is_no_such_search_is_refused(beam: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BeamConfig.model_validate(beam)


@pytest.mark.parametrize("config", [SamplingConfig, BeamConfig])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_tokens": 12, "max_tokens": 10}, "min_tokens: found 12, expected at most max_tokens"),
        ({"no_repeat_ngram": 1}, "no_repeat_ngram: found 1, expected 0 or at least 2"),
    ],
)
def test_settings_that_forbid_eos_are_refused(config: Any, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**settings)
