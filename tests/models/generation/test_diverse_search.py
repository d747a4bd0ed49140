"""Diverse beam search and contrastive search against plain ones: no cache, no batch, lists and loops."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models.captioner.model import Captioner
from models.generation.candidates import Candidate, beam_search, encoded_batches, search
from models.generation.token_ensemble import JointCaptioner, JointStates
from models.settings import BeamConfig

from .test_candidates import assert_same

Clips = tuple[list[np.ndarray], np.ndarray]
LIMITS = {"min_tokens": 4, "max_tokens": 11, "no_repeat_ngram": 2}
DIVERSE = BeamConfig(beams=6, groups=3, diversity_penalty=0.7, **LIMITS)
CONTRASTIVE = BeamConfig(beams=1, penalty_alpha=0.6, top_k=5, **LIMITS)


class Plain:
    """Next words of one clip, from the whole caption anew at every step."""

    def __init__(self, captioner: Captioner, states: Tensor, mask: Tensor) -> None:
        self.captioner, self.states, self.mask = captioner, states, mask

    def read(self, ids: list[int]) -> tuple[Tensor, Tensor]:
        """Log-probabilities [vocabulary] of the next token, and the decoder's last states [tokens + 1, width]."""
        bart = self.captioner.bart
        start = bart.config.decoder_start_token_id
        hidden = bart.model.decoder(
            input_ids=torch.tensor([[start, *ids]]),
            encoder_hidden_states=self.states[None],
            encoder_attention_mask=self.mask[None],
        ).last_hidden_state[0]
        return (bart.lm_head(hidden[-1]) + bart.final_logits_bias[0]).log_softmax(-1), hidden

    def allowed(self, ids: list[int], scores: Tensor) -> Tensor:
        """Without EOS too early, or all else too late, and no pair of tokens twice (the start token counts)."""
        eos, said = self.captioner.ends[1], [self.captioner.bart.config.decoder_start_token_id, *ids]
        out = scores.clone()
        if len(said) < LIMITS["min_tokens"]:
            out[eos] = -torch.inf
        for before, after in pairwise(said):
            if before == said[-1]:
                out[after] = -torch.inf
        if len(said) == LIMITS["max_tokens"]:
            out[torch.arange(len(out)) != eos] = -torch.inf
        return out

    def diverse(self, config: BeamConfig) -> list[tuple[list[int], float]]:
        """Of each group the best caption and its summed log-likelihood."""
        (bos, eos), each = self.captioner.ends, config.beams // config.groups
        running = [[([bos], 0.0)] for _ in range(config.groups)]
        ended: list[list[tuple[float, list[int], float]]] = [[] for _ in range(config.groups)]
        for _ in range(2, config.max_tokens + 1):
            taken: list[int] = []
            for group in range(config.groups):
                if len(ended[group]) >= each:
                    continue
                found = []
                for ids, total in running[group]:
                    for token, value in enumerate(self.allowed(ids, self.read(ids)[0]).tolist()):
                        bent = total + value - config.diversity_penalty * taken.count(token)
                        found.append((bent, [*ids, token], total + value))
                found.sort(key=lambda one: -one[0])
                ends = [one for one in found[:each] if one[1][-1] == eos]
                ended[group] += [(total / len(ids), ids, total) for _, ids, total in ends]
                running[group] = [(ids, total) for _, ids, total in found if ids[-1] != eos][:each]
                taken += [ids[-1] for ids, _ in running[group]]
        return [max(group)[1:] for group in ended]

    def contrastive(self, config: BeamConfig) -> tuple[list[int], float]:
        """The caption and its summed log-likelihood."""
        ids, total = [self.captioner.ends[0]], 0.0
        while len(ids) < config.max_tokens and ids[-1] != self.captioner.ends[1]:
            log_probs, context = self.read(ids)
            probabilities, tokens = self.allowed(ids, log_probs).softmax(-1).topk(config.top_k)
            scores = []
            for probability, token in zip(probabilities.tolist(), tokens.tolist(), strict=True):
                state = self.read([*ids, token])[1][-1]
                alike = max(float(torch.cosine_similarity(state, other, dim=0)) for other in context)
                scores.append((1 - config.penalty_alpha) * probability - config.penalty_alpha * alike)
            token = int(tokens[int(np.argmax(scores))])
            ids, total = [*ids, token], total + float(log_probs[token])
        return ids, total

    def candidate(self, ids: list[int], total: float) -> Candidate:
        text = self.captioner.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return Candidate(text, total / (len(ids) - 1), len(ids) - 1)


@torch.inference_mode()
def test_as_the_plain_searches(captioner: Captioner, clips: Clips) -> None:
    rows, states, mask = next(encoded_batches(captioner, *clips, 16))
    diverse = search(captioner, states, mask, DIVERSE)
    contrastive = search(captioner, states, mask, CONTRASTIVE)
    assert max(len(found) for found in diverse) == DIVERSE.groups
    for row in range(len(rows)):
        plain = Plain(captioner, states[row], mask[row])
        expected = {one.text: one for one in (plain.candidate(*found) for found in reversed(plain.diverse(DIVERSE)))}
        assert {one.text for one in diverse[row]} == expected.keys()
        assert_same(diverse[row], [expected[one.text] for one in diverse[row]])
        assert_same(contrastive[row], [plain.candidate(*plain.contrastive(CONTRASTIVE))])
    assert_differs(contrastive, search(captioner, states, mask, BeamConfig(beams=1, **LIMITS)))


def assert_differs(found: list[list[Candidate]], other: list[list[Candidate]]) -> None:
    assert [[one.text for one in clip] for clip in found] != [[one.text for one in clip] for clip in other]


@pytest.mark.parametrize("config", [DIVERSE, CONTRASTIVE], ids=["diverse", "contrastive"])
def test_a_clip_is_the_same_alone_and_in_any_batch(captioner: Captioner, clips: Clips, config: BeamConfig) -> None:
    rows, states, mask = next(encoded_batches(captioner, *clips, 16))
    together = search(captioner, states, mask, config)
    for row, found in zip(rows, together, strict=True):
        _, own, seen = next(encoded_batches(captioner, [clips[0][row]], clips[1][row, None], 1))
        assert_same(search(captioner, own, seen, config)[0], found)
    for number, one in enumerate(candidate for clip in together for candidate in clip):
        assert np.isfinite(one.decoder_score), number


def test_the_first_group_is_beam_search_and_penalties_make_groups_differ(captioner: Captioner, clips: Clips) -> None:
    _, states, mask = next(encoded_batches(captioner, *clips, 16))
    first = [found[0] for found in search(captioner, states, mask, DIVERSE)]
    assert_same(first, beam_search(captioner, states, mask, BeamConfig(beams=2, **LIMITS)))
    alike = search(captioner, states, mask, DIVERSE.model_copy(update={"diversity_penalty": 0.0}))
    assert [len(found) for found in alike] == [1] * len(states)


@pytest.mark.parametrize("config", [DIVERSE, CONTRASTIVE], ids=["diverse", "contrastive"])
def test_equal_members_search_as_one(captioner: Captioner, clips: Clips, config: BeamConfig) -> None:
    joint = JointCaptioner({"a": captioner, "b": captioner}, "log-probabilities")
    _, states, mask = next(encoded_batches(captioner, *clips, 16))
    both = search(joint, JointStates([states, states], [mask, mask]), mask, config)
    for found, expected in zip(both, search(captioner, states, mask, config), strict=True):
        assert_same(found, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 4, "groups": 3}, "3 does not divide beams"),
        ({"penalty_alpha": 0.6}, "needs beams: 1, found 4"),
        ({"diversity_penalty": 1.0}, "diversity_penalty has no effect without groups above 1"),
        ({"beams": 1, "top_k": 8}, "top_k has no effect without penalty_alpha"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BeamConfig.model_validate(settings)
