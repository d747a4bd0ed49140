"""The optimizer's parameter groups, its learning rate, and the average of the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import get_inverse_sqrt_schedule

from models.fluency.detector import FluencyDetector
from models.settings import FluencyDetectorConfig
from ray_jobs.experiment.training_config import Training
from ray_jobs.training.optimizer import lr_lambda, moving_average, parameter_groups
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
    assert average.module.get_parameter("weight").item() == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 3)


def test_inverse_sqrt_is_the_one_that_enclap_takes_from_transformers() -> None:
    for warmup, time_scale in ((2000, None), (1000, 500), (0, 1000)):
        training = Training(
            epochs=1, learning_rate=1.0, schedule="inverse-sqrt", warmup_steps=warmup, time_scale=time_scale
        )
        ours = lr_lambda(training, 100)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = get_inverse_sqrt_schedule(optimizer, warmup, time_scale).lr_lambdas[0]
        later = [warmup, warmup + 1, warmup + 999, 60_000]
        assert [ours(step) for step in later] == pytest.approx([theirs(step) for step in later])
        if warmup:
            assert [ours(step) for step in (0, 9, warmup - 1)] == [theirs(step) for step in (1, 10, warmup)]
    assert ours(3000) == pytest.approx(0.5)


def test_cosine_and_constant_start_full_and_end_as_named() -> None:
    cosine = lr_lambda(Training(epochs=3, learning_rate=1.0, warmup_steps=10), 10)
    assert [cosine(0), cosine(9), cosine(20)] == pytest.approx([0.1, 1.0, 0.5])
    assert cosine(30) == pytest.approx(0.0)
    constant = lr_lambda(Training(epochs=3, learning_rate=1.0, schedule="constant"), 10)
    assert {constant(step) for step in (0, 7, 999)} == {1.0}
