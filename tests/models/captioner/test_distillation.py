"""Token distributions of several captioners as soft targets: values step by step, and what a student learns."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch

from models.captioner.distillation import IGNORED, TokenTargets, mean_log_probabilities, token_distillation_loss
from models.captioner.model import Captioner

from ..conftest import CAPTIONS

Clips = tuple[list[np.ndarray], np.ndarray]


def other(captioner: Captioner, seed: int) -> Captioner:
    """A captioner of the same layout and tokenizer with other weights."""
    torch.manual_seed(seed)
    copied = deepcopy(captioner)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return copied.eval()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_is_the_divergence_a_token(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits, teachers = rng.normal(size=(2, 3, 4, 7))
    labels = np.array([[1, 2, 3, 4], [1, 2, IGNORED, IGNORED], [1, 2, 3, IGNORED]])
    total, tokens = 0.0, 0
    for n, s in np.argwhere(labels != IGNORED):
        own, said = (np.exp(one[n, s] / temperature) for one in (logits, teachers))
        p, q = said / said.sum(), own / own.sum()
        total += sum(p_i * math.log(p_i / q_i) for p_i, q_i in zip(p, q, strict=True))
        tokens += 1
    expected = torch.from_numpy(teachers / temperature).log_softmax(-1)
    found = token_distillation_loss(torch.from_numpy(logits), expected, torch.from_numpy(labels), temperature)
    assert float(found) == pytest.approx(temperature**2 * total / tokens, rel=1e-9)


def test_probabilities_are_averaged_token_by_token_clip_by_clip(captioner: Captioner, clips: Clips) -> None:
    codes, audio = clips[0][:2], torch.from_numpy(clips[1][:2])
    teachers = [captioner, other(captioner, 1)]
    labels = captioner.labels([CAPTIONS[0], CAPTIONS[1], CAPTIONS[2], CAPTIONS[0]])  # two a clip
    found = mean_log_probabilities(teachers, codes, [audio, 2 * audio], labels, temperature=2.0)
    for row, clip in enumerate([0, 0, 1, 1]):
        shares = []
        for teacher, heard in zip(teachers, [audio, 2 * audio], strict=True):
            with torch.no_grad():
                states, mask = teacher.encode(*teacher.pad_codes([codes[clip]]), heard[clip : clip + 1])
                shares.append((teacher.caption_logits(states, mask, labels[row : row + 1])[0] / 2).softmax(-1))
        counted = labels[row] != IGNORED
        assert torch.allclose(found[row][counted].exp(), torch.stack(shares).mean(0)[counted], atol=1e-5)
    assert not found.requires_grad


def test_a_student_comes_to_expect_what_its_teachers_expect(captioner: Captioner, clips: Clips) -> None:
    codes, audio = clips[0][:4], torch.from_numpy(clips[1][:4])
    teachers, student = [other(captioner, seed) for seed in (1, 2)], other(captioner, 3).train()
    student.config = student.config.model_copy(update={"mcm_weight": 0.0})
    captions = [[caption] for caption in CAPTIONS]
    labels = student.labels(CAPTIONS)
    targets = TokenTargets(mean_log_probabilities(teachers, codes, [audio, audio], labels, 1.0), 1.0, weight=1.0)
    optimizer, history = torch.optim.AdamW(student.parameters(), lr=1e-3), []
    for _ in range(40):
        optimizer.zero_grad()
        losses = student(*student.pad_codes(codes), audio, captions, soft_targets=targets)
        losses["loss"].backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    assert history[-1]["distillation_loss"] < 0.5 * history[0]["distillation_loss"]
    assert history[-1]["loss"] == pytest.approx(history[-1]["distillation_loss"])
    assert all(parameter.grad is None for teacher in teachers for parameter in teacher.parameters())


def test_references_and_teachers_share_the_weight_of_the_captions(captioner: Captioner, clips: Clips) -> None:
    codes, audio = clips[0][:4], torch.from_numpy(clips[1][:4])
    captions = [[caption] for caption in CAPTIONS]
    model = deepcopy(captioner).requires_grad_(False)
    targets = TokenTargets(
        mean_log_probabilities([other(captioner, 1)], codes, [audio], model.labels(CAPTIONS), 2.0), 2.0, weight=0.25
    )
    torch.manual_seed(0)
    alone = model(*model.pad_codes(codes), audio, captions)
    torch.manual_seed(0)
    found = model(*model.pad_codes(codes), audio, captions, soft_targets=targets)
    assert float(found["caption_loss"]) == pytest.approx(float(alone["caption_loss"]))
    expected = 0.75 * float(alone["caption_loss"]) + 0.25 * float(found["distillation_loss"])
    assert float(found["loss"]) == pytest.approx(expected + model.config.mcm_weight * float(alone["mcm_loss"]))
