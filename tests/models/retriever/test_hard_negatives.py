"""The loss of wrong captions is what its formula says, for every loss that it stands beside."""

from typing import Any

import numpy as np
import pytest
import torch

from models.encoders.log_mel import pad_log_mels
from models.retriever.model import Retriever
from models.settings import RetrieverSettings, WrongCaptionsConfig

from ..conftest import CAPTIONS
from ..test_rows import NoUnorderedSums
from .test_model import KINDS, assert_same_gradients, make

WRONG = [["a dog barks once", "a cat meows twice nearby"], [], ["footsteps fade and then a bell rings"], []]
LOSSES = [("m-ltm", "full"), ("nt-xent", "identity"), ("triplet", "identity")]


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    clips = [(20 * rng.normal(size=64) + rng.normal(size=(n, 64))).astype(np.float16) for n in (60, 90, 45, 130)]
    log_mel, lengths = pad_log_mels(clips)
    return log_mel.double(), lengths


def retriever(weight: float = 1.0, **settings: Any) -> Retriever:
    if settings.get("loss", "m-ltm") != "m-ltm":
        settings["epsilon"] = RetrieverSettings.model_fields["epsilon"].default
    wrong = WrongCaptionsConfig(number=2, weight=weight)
    return make(*KINDS[1], wrong_captions=wrong, **settings).double().eval()


def step_by_step(model: Retriever, audio: torch.Tensor, text: torch.Tensor) -> float:
    """The loss of WRONG, one clip and one caption at a time."""
    config, x, y = model.config, model.metric(audio), model.metric(text)
    largest = max(float((one - other).norm()) for one in x for other in y)

    def logit(clip: int, caption: torch.Tensor) -> float:
        distance = float((x[clip] - caption).norm())
        if config.loss == "m-ltm":
            return -distance / largest / config.epsilon
        similarity = -(distance**2) / 2
        return similarity * float(model.log_scale.exp()) if config.loss == "nt-xent" else similarity

    total = 0.0
    for clip, wrong in enumerate(WRONG):
        right = logit(clip, y[clip])
        others = [logit(clip, model.metric(model.embed_text([one]))[0]) for one in wrong]
        if config.loss == "triplet":
            total += sum(max(0.0, config.margin + other - right) for other in others)
        else:
            total += float(np.log(sum(np.exp([right, *others]))) - right)
    return total / len(WRONG)


@pytest.mark.parametrize(("loss", "metric"), LOSSES)
def test_is_added_to_the_loss_of_the_pairs(batch: tuple[torch.Tensor, torch.Tensor], loss: str, metric: str) -> None:
    model = retriever(weight=0.7, loss=loss, metric=metric)
    with torch.no_grad():
        alone = model(*batch, CAPTIONS)
        found = model(*batch, CAPTIONS, wrong=WRONG)
        expected = step_by_step(model, model.embed_audio(*batch), model.embed_text(CAPTIONS))
    assert expected > 1e-3
    assert float(found - alone) == pytest.approx(0.7 * expected, rel=1e-6)


@pytest.mark.parametrize(("loss", "metric"), LOSSES)
def test_its_gradient_is_that_of_its_values(batch: tuple[torch.Tensor, torch.Tensor], loss: str, metric: str) -> None:
    model = retriever(loss=loss, metric=metric)
    weight = model.text_projection.get_parameter("0.weight")
    model(*batch, CAPTIONS, wrong=WRONG).backward()
    direction = torch.randn_like(weight, generator=torch.Generator().manual_seed(0))
    assert weight.grad is not None
    slope, step = float((weight.grad * direction).sum()), 1e-6
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            weight.add_(sign * step * direction)
            values.append(float(model(*batch, CAPTIONS, wrong=WRONG)))
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_captions_without_wrong_ones_change_nothing(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = retriever()
    with torch.no_grad():
        alone = model(*batch, CAPTIONS)
        assert torch.equal(model(*batch, CAPTIONS, wrong=[[], [], [], []]), alone)
        assert torch.equal(model(*batch, CAPTIONS, wrong=None), alone)


def test_gradient_cache_changes_no_gradient(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    gradients = []
    for chunk_size in (None, 2):
        model = retriever().train()
        model(*batch, CAPTIONS, chunk_size=chunk_size, wrong=WRONG).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert_same_gradients(*gradients)


@pytest.mark.parametrize(("loss", "metric"), LOSSES)
def test_training_tells_the_wrong_captions_from_the_right_ones(
    batch: tuple[torch.Tensor, torch.Tensor], loss: str, metric: str
) -> None:
    model = retriever(loss=loss, metric=metric)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def lead() -> float:
        """How much nearer the right caption of clip 2 is than its wrong one."""
        audio, text = (
            model.metric(model.embed_audio(*batch))[2],
            model.metric(model.embed_text([CAPTIONS[2], *WRONG[2]])),
        )
        right, wrong = (text - audio).norm(dim=1).tolist()
        return float(wrong - right)

    before = lead()
    for _ in range(40):
        optimizer.zero_grad()
        model(*batch, CAPTIONS, wrong=WRONG).backward()
        optimizer.step()
    assert lead() > max(0.0, before)


def test_its_gradient_is_added_up_in_a_fixed_order(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    with NoUnorderedSums():
        retriever().train()(*batch, CAPTIONS, wrong=WRONG).backward()
