"""Similarities of several retrievers as soft targets: values step by step, and what a student learns from them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from models.encoders.log_mel import pad_log_mels
from models.retriever.distillation import (
    SoftTargets,
    TeacherEmbeddings,
    mean_softmax,
    similarity_distillation_loss,
    standardised,
)
from models.retriever.optimal_transport import MahalanobisMetric

from ..conftest import CAPTIONS
from .test_model import KINDS, make


def by_hand(own: np.ndarray, teachers: list[np.ndarray], temperature: float) -> float:
    """The loss in one direction, cell by cell."""

    def shares(row: list[float]) -> list[float]:
        mean = sum(row) / len(row)
        deviation = math.sqrt(sum((cell - mean) ** 2 for cell in row) / len(row))
        weights = [math.exp((cell - mean) / deviation / temperature) for cell in row]
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


def test_the_scale_of_a_similarity_does_not_matter_its_gaps_do() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(5, 5, dtype=torch.float64)
    assert float(similarity_distillation_loss(40 * teacher - 7, [teacher], 0.5)) == pytest.approx(0, abs=1e-9)
    assert float(similarity_distillation_loss(teacher**3, [teacher], 0.5)) > 0.01
    assert torch.isfinite(standardised(torch.zeros(2, 3))).all(), "queries to which all answers are alike"


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
    teacher = TeacherEmbeddings(audio=text.roll(1, 0), text=text, metric=MahalanobisMetric(6))
    targets = SoftTargets([teacher, teacher], temperature=0.5, weight=1.0)
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
    assert found.argmax(1).tolist() == teacher.similarity().argmax(1).tolist() == [1, 2, 3, 0]


def test_both_losses_count_by_their_weight_and_the_own_one_is_as_without_teachers() -> None:
    student = make(*KINDS[1]).eval()
    teacher = TeacherEmbeddings(torch.eye(4), torch.eye(4), MahalanobisMetric(4, "identity"))
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
    found = TeacherEmbeddings(audio.half(), text.half(), metric).similarity()
    assert torch.allclose(found, torch.tensor([[0.0, -3.0], [-2.0, -1.0]]), atol=1e-3)
    assert not found.requires_grad
