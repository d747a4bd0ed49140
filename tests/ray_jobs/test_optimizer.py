"""What the optimizer steps on, and how far."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.fluency import FluencyDetector
from models.settings import FluencyDetectorConfig
from ray_jobs.config import Training
from ray_jobs.optimizer import moving_average, parameter_groups
from tests.models.conftest import published_text_encoder


def groups(directory: Path, finetuning: str, **settings: Any) -> tuple[FluencyDetector, list[dict[str, Any]]]:
    encoder = {"name": str(published_text_encoder(directory, "bert")), "finetuning": finetuning}
    model = FluencyDetector.create(FluencyDetectorConfig.model_validate({"text_encoder": encoder}), [])
    return model, parameter_groups(model, Training(epochs=1, learning_rate=1e-3, weight_decay=0.1, **settings))


def test_without_layer_decay_only_matrices_differ(tmp_path: Path) -> None:
    model, (matrices, vectors) = groups(tmp_path, "full")
    assert (matrices["lr"], matrices["weight_decay"]) == (1e-3, 0.1)
    assert (vectors["lr"], vectors["weight_decay"]) == (1e-3, 0.0)
    assert {p.dim() > 1 for p in matrices["params"]} == {True}
    assert {p.dim() > 1 for p in vectors["params"]} == {False}
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("finetuning", ["full", "lora"])
def test_each_layer_learns_more_slowly_than_the_one_above(finetuning: str, tmp_path: Path) -> None:
    model, found = groups(tmp_path, finetuning, layer_decay=0.5)
    rates = {parameter: group["lr"] for group in found for parameter in group["params"]}
    assert rates.keys() == {parameter for parameter in model.parameters() if parameter.requires_grad}
    named = {name: rates[p] for name, p in model.named_parameters() if p in rates}
    assert found[0]["lr"] == named["head.weight"] == named["head.bias"] == 1e-3
    assert {rate for name, rate in named.items() if "layer.1." in name} == {0.5e-3}
    assert {rate for name, rate in named.items() if "layer.0." in name} == {0.25e-3}
    embeddings = {rate for name, rate in named.items() if "embeddings" in name}
    assert embeddings == ({0.125e-3} if finetuning == "full" else set())


def test_what_is_frozen_has_no_optimizer_state(tmp_path: Path) -> None:
    model, found = groups(tmp_path, "frozen", layer_decay=0.5)
    assert {p for group in found for p in group["params"]} == {*model.head.parameters()}


def test_moving_average_lags_behind() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = moving_average(model, 0.9)
    assert average is not None
    assert moving_average(model, 0.0) is None
    for value in (1.0, 2.0, 3.0):
        torch.nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    assert float(average.module.weight) == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 3)
