"""Captioners in lock-step: equal members are one, scores are of the average, tokenizers are checked."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from models.captioner.model import Captioner
from models.generation import candidates as generation
from models.generation.candidates import Candidate, Decoding, beam_search, encoded_batches, sample
from models.generation.proposals import ClipInputs, propose
from models.generation.token_ensemble import Average, JointCaptioner, JointStates
from models.settings import BeamConfig, CaptionerConfig, SamplingConfig, TokenEnsembleConfig

from ..conftest import CAPTIONS

Clips = tuple[list[np.ndarray], np.ndarray]
SAMPLING = SamplingConfig(candidates=5, temperature=1.0, min_tokens=3, max_tokens=12)
BEAM = BeamConfig(beams=3, min_tokens=3, max_tokens=12)
AVERAGES: list[Average] = ["log-probabilities", "probabilities"]


@pytest.fixture(scope="module")
def other(captioner: Captioner) -> Captioner:
    """Another size and other weights, the same words."""
    torch.manual_seed(1)
    sizes = captioner.config.sizes | {"d_model": 48, "decoder_layers": 2}
    config = CaptionerConfig.model_validate(captioner.config.model_dump() | {"sizes": sizes})
    made = Captioner.create(config, CAPTIONS).eval()
    made.tokenizer = captioner.tokenizer  # training one twice orders equally frequent pieces by chance
    return made


def propose_jointly(members: dict[str, Captioner], clips: Clips, average: Average) -> dict[str, list[list[Candidate]]]:
    config = TokenEnsembleConfig(members=list(members), average=average)
    inputs = ClipInputs(clips[0], dict.fromkeys(members, clips[1]))
    return propose(members, inputs, Decoding(SAMPLING, BEAM, 0), {"joint": config}).candidates


@pytest.mark.parametrize("average", AVERAGES)
def test_equal_members_give_the_single_ones_results(captioner: Captioner, clips: Clips, average: Average) -> None:
    found = propose_jointly({"a": captioner, "b": deepcopy(captioner)}, clips, average)
    for joint, single in (("joint", "a"), ("joint/beam", "a/beam")):
        for candidates, expected in zip(found[joint], found[single], strict=True):
            assert [(c.text, c.tokens) for c in candidates] == [(c.text, c.tokens) for c in expected]
            scores = [c.decoder_score for c in expected]
            assert [c.decoder_score for c in candidates] == pytest.approx(scores, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("average", AVERAGES)
def test_scores_are_of_the_averaged_distribution(
    captioner: Captioner, other: Captioner, clips: Clips, average: Average, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recomputed from the very tokens by teacher forcing of each member."""
    members = {"a": captioner, "b": other}
    joint = JointCaptioner(members, average)
    batches = [next(encoded_batches(member, *clips, 16)) for member in members.values()]
    encoded = JointStates([states for _, states, _ in batches], [mask for _, _, mask in batches])
    generated: list[Any] = []
    original = generation._generate

    def recorded(*arguments: Any, **options: Any) -> Any:
        generated.append(original(*arguments, **options))
        return generated[-1]

    monkeypatch.setattr(generation, "_generate", recorded)
    one_each = SAMPLING.model_copy(update={"candidates": 1})
    drawn = [one for (one,) in sample(joint, encoded, encoded.masks[0], one_each, seed=0)]
    best = beam_search(joint, encoded, encoded.masks[0], BEAM)
    for candidates, tokens in ((drawn, generated[0]), (best, generated[1].sequences)):
        for row, candidate in enumerate(candidates):
            labels = tokens[row, None, 1 : candidate.tokens + 2]
            log_probs = torch.stack(
                [
                    member.caption_logits(states[row, None], mask[row, None], labels).log_softmax(-1)[0]
                    for member, states, mask in zip(members.values(), encoded.states, encoded.masks, strict=True)
                ]
            )
            product = log_probs.mean(0).log_softmax(-1)
            mean = product if average == "log-probabilities" else log_probs.exp().mean(0).log()
            expected = float(mean.gather(1, labels[0][:, None])[1:].mean())
            assert candidate.decoder_score == pytest.approx(expected, abs=1e-4)


def test_an_ensemble_says_its_own_and_the_same_in_any_batch(
    captioner: Captioner, other: Captioner, clips: Clips
) -> None:
    members = {"a": captioner, "b": other}
    together = propose_jointly(members, clips, "log-probabilities")
    assert together["joint"] != together["a"]
    alone = propose_jointly(members, (clips[0][1:2], clips[1][1:2]), "log-probabilities")
    for name in ("joint", "joint/beam"):
        assert [c.text for c in alone[name][0]] == [c.text for c in together[name][1]]


def test_other_tokenizers_are_refused(captioner: Captioner, clips: Clips) -> None:
    config = captioner.config.model_copy(update={"vocab_size": 60})
    with pytest.raises(ValueError, match=r"token_ensembles.joint: 'b' has another tokenizer than 'a'"):
        propose_jointly({"a": captioner, "b": Captioner.create(config, CAPTIONS).eval()}, clips, "probabilities")
