"""Similarities of several retrievers as soft targets: values step by step, and what a student learns from them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from models.encoders.log_mel import pad_log_mels
from models.retriever.distillation import (
    LossScale,
    SoftTargets,
    TeacherEmbeddings,
    mean_softmax,
    similarity_distillation_loss,
)
from models.retriever.optimal_transport import MahalanobisMetric

from ..conftest import CAPTIONS
from .test_model import KINDS, make

SHARP = LossScale("nt-xent", 0.0, 8.0)


def by_hand(own: np.ndarray, teachers: list[np.ndarray], temperature: float) -> float:
    """The loss in one direction, cell by cell."""

    def shares(row: list[float]) -> list[float]:
        weights = [math.exp(cell / temperature) for cell in row]
        return [weight / sum(weights) for weight in weights]

    total = 0.0
    for query, row in enumerate(own.tolist()):
        said = [shares(teacher[query].tolist()) for teacher in teachers]
        target = [sum(cells) / len(said) for cells in zip(*said, strict=True)]
        total += sum(p * math.log(p / q) for p, q in zip(target, shares(row), strict=True))
    return total / len(own)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_the_loss_is_the_divergence_in_both_directions(temperature: float) -> None:
    rng = np.random.default_rng(0)
    own, *teachers = rng.normal(size=(3, 6, 6))
    expected = by_hand(own, teachers, temperature) + by_hand(own.T, [one.T for one in teachers], temperature)
    found = similarity_distillation_loss(
        torch.from_numpy(own), [torch.from_numpy(one) for one in teachers], temperature
    )
    assert float(found) == pytest.approx(expected / 2, rel=1e-9)


@pytest.mark.parametrize("loss", ["m-ltm", "nt-xent", "triplet"])
def test_similarities_stand_at_the_scale_of_the_own_loss(loss: str) -> None:
    epsilon = 0.1 if loss == "m-ltm" else 0.03  # the default, which has no effect
    retriever = make(*KINDS[1], loss=loss, metric="full", epsilon=epsilon)
    with torch.no_grad():
        text, audio = torch.randn(2, 5, 16)
        found, distances = retriever._logits(text, audio), torch.cdist(text, audio)
    expected = {
        "m-ltm": -distances / (0.1 * distances.max()),
        "nt-xent": -distances.square() / 2 / 0.07,
        "triplet": -distances.square() / 2 / 0.07,
    }
    torch.testing.assert_close(found.detach(), expected[loss], rtol=1e-4, atol=1e-4)


def test_a_student_that_tells_nothing_apart_yet_has_a_small_gradient() -> None:
    """At the start embeddings are all but alike; a loss that blew up their differences would keep them there."""
    torch.manual_seed(0)
    near = (torch.ones(6, 4) + 1e-4 * torch.randn(6, 4)).requires_grad_()
    scale = LossScale("nt-xent", 0.0, 1 / 0.07)
    loss = similarity_distillation_loss(scale.logits(torch.cdist(near, torch.ones(6, 4))), [3 * torch.eye(6)], 1.0)
    (gradient,) = torch.autograd.grad(loss, near)
    assert float(gradient.norm()) < 0.01


def test_every_teacher_has_the_same_say() -> None:
    sure, unsure = torch.tensor([[9.0, 0, 0]]), torch.tensor([[0.0, 0, 1]])
    found = mean_softmax([sure, unsure], 0.5)
    assert torch.allclose(found, (mean_softmax([sure], 0.5) + mean_softmax([unsure], 0.5)) / 2)
    assert float(found.sum()) == pytest.approx(1)


def pairs() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    return pad_log_mels([(20 * rng.normal(size=(frames, 64))).astype(np.float16) for frames in (60, 90, 45, 70)])


def test_a_student_learns_what_its_teachers_say_even_against_the_pairs() -> None:
    """The teachers hear caption i in clip i + 1; with weight 1 the student's own loss has no say."""
    student = make(*KINDS[1]).train()
    text = torch.eye(4, 6)
    teacher = TeacherEmbeddings(text.roll(1, 0), text, MahalanobisMetric(6), SHARP)
    targets = SoftTargets([teacher, teacher], temperature=1.0, weight=1.0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    history = []
    for step in range(40):
        optimizer.zero_grad()
        chunked = 2 if step % 2 else None
        losses = student(*pairs(), CAPTIONS, chunk_size=chunked, soft_targets=targets)
        losses["loss"].backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    assert history[-1]["distillation_loss"] < 0.1 * history[0]["distillation_loss"]
    assert history[-1]["loss"] == pytest.approx(history[-1]["distillation_loss"])
    student.eval()
    with torch.no_grad():
        found = -student._distances(student.embed_text(CAPTIONS), student.embed_audio(*pairs()))
    assert found.argmax(1).tolist() == teacher.logits().argmax(1).tolist() == [1, 2, 3, 0]


def test_both_losses_count_by_their_weight_and_the_own_one_is_as_without_teachers() -> None:
    student = make(*KINDS[1]).eval()
    teacher = TeacherEmbeddings(torch.eye(4), torch.eye(4), MahalanobisMetric(4, "identity"), SHARP)
    student.requires_grad_(False)
    alone = student(*pairs(), CAPTIONS)
    found = student(*pairs(), CAPTIONS, soft_targets=SoftTargets([teacher], 1.0, weight=0.25))
    assert float(found["pair_loss"]) == pytest.approx(float(alone))
    assert float(found["loss"]) == pytest.approx(0.75 * float(alone) + 0.25 * float(found["distillation_loss"]))
    with torch.autocast("cpu", torch.bfloat16):
        half = student(*pairs(), CAPTIONS, soft_targets=SoftTargets([teacher], 1.0, weight=0.25))
    assert half["distillation_loss"].dtype == torch.float32
    assert float(half["loss"]) == pytest.approx(float(found["loss"]), abs=0.1)


def test_a_teacher_answers_under_its_own_metric() -> None:
    metric = MahalanobisMetric(2, "diagonal")
    metric.factor.data = torch.tensor([1.0, 0.0])  # it ignores the second dimension
    audio, text = torch.tensor([[0.0, 5.0], [3.0, 0.0]]), torch.tensor([[0.0, -5.0], [2.0, 9.0]])
    found = TeacherEmbeddings(audio.half(), text.half(), metric, LossScale("m-ltm", 0.1, 1.0)).logits()
    assert torch.allclose(found, torch.tensor([[0.0, -10.0], [-20 / 3, -10 / 3]]), atol=1e-2)
    assert not found.requires_grad
