"""A codec trains in the same loop as members: its phases, its schedule, and a training that goes on after a stop."""

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import ray.train
import ray.train.torch
import torch

from models.codec.base import load_codec
from ray_jobs.experiment.codec_config import CodecExperiment
from ray_jobs.training.codec_job import CodecJob
from ray_jobs.training.faults import LossIsNaNError
from ray_jobs.training.job import TrainingRequest
from ray_jobs.training.loop import TrainingState
from ray_jobs.training.optimizer import warm_cosine
from ray_jobs.training.tasks.base import make_task

EPOCHS, STEPS = 4, 2  # one epoch without codebooks, one that learns them, two of the decoder
DAC = {"encoder_dim": 4, "encoder_rates": [10, 8, 8], "latent_dim": 8, "decoder_dim": 16, "n_codebooks": 2,
       "codebook_size": 16, "codebook_dim": 4}  # fmt: skip


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker with one CPU that starts without a checkpoint; Ray Train's functions do nothing."""
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(ray.train, "report", lambda *_, **__: None)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def state(folder: Path, scratch: str, **settings: Any) -> TrainingState:
    """A training in `folder`, whose checkpoint is kept in `folder / scratch`."""
    config = CodecExperiment.model_validate(
        {
            "storage_path": str(folder),
            "model": DAC,
            "epochs": EPOCHS,
            "steps_per_epoch": STEPS,
            "batch_size": 2,
            "corpus": {"train": 8, "validation": 2, "probe": 0},
            "crop_s": 0.2,
            "projection_epochs": 1,
            "decoder_epochs": 2,
            "seed_scenes": 4,
            **settings,
        }
    )
    (folder / scratch).mkdir(parents=True, exist_ok=True)
    task = make_task(CodecJob.of(config))
    request = TrainingRequest(task.job, "", None)
    return TrainingState(task, folder / scratch, rank=0, world=1, request=request)


def codes_part(training: TrainingState) -> dict[str, torch.Tensor]:
    """The weights that codes depend on."""
    weights = training.model.dac.state_dict()
    return {key: value.clone() for key, value in weights.items() if not key.startswith("decoder")}


def test_the_last_epochs_leave_the_codes_alone(tmp_path: Path) -> None:
    training = state(tmp_path, "scratch")
    found = [codes_part(training)]
    for _ in range(EPOCHS):
        training.run_epoch()
        found.append(codes_part(training))
    changed = [any(not torch.equal(one[key], other[key]) for key in one) for one, other in pairwise(found)]
    codebooks = [key for key in found[0] if "codebook.weight" in key]
    assert codebooks
    assert all(torch.equal(found[0][key], found[1][key]) for key in codebooks), "nothing is quantized at first"
    assert changed == [True, True, True, False], "seeded once more before the decoder learns alone"
    moved = {key.split(".")[0] for key in found[2] if not torch.equal(found[2][key], found[3][key])}
    assert moved == {"quantizer"}, "the encoder rests as soon as the decoder learns alone"


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = state(tmp_path / "a", "scratch")
    for _ in range(EPOCHS):
        undisturbed.run_epoch()
    stopped = state(tmp_path / "b", "scratch")
    for _ in range(2):
        stopped.run_epoch()
    torch.manual_seed(123)  # whatever another process has drawn
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: ray.train.Checkpoint(str(tmp_path / "b" / "scratch")))
    resumed = state(tmp_path / "b", "resumed")
    assert (resumed.epoch, len(resumed.history)) == (2, 2)
    while resumed.epoch < EPOCHS:
        resumed.run_epoch()
    weights = undisturbed.model.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in resumed.model.state_dict().items())


def test_the_last_epoch_is_the_codec_that_is_published(tmp_path: Path) -> None:
    training = state(tmp_path, "scratch", corpus={"train": 8, "validation": 2, "probe": 60})
    values = [training.run_epoch().values for _ in range(EPOCHS)]
    training.publish("commit")
    output = tmp_path / "codec"
    codec = load_codec(output / "codec.safetensors")
    last = training.model.dac.state_dict()["decoder.model.0.bias"]
    assert torch.equal(codec.state["decoder.model.0.bias"], last)
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["epoch"] == EPOCHS
    assert metrics["steps"] == EPOCHS * STEPS
    assert metrics["validation_reconstruction"] == values[-1]["validation_reconstruction"]
    assert metrics["perplexity"] == [values[-1]["perplexity_1"], values[-1]["perplexity_2"]]
    assert [len(epoch["used_entries"]) for epoch in metrics["history"]] == [2] * EPOCHS
    assert set(metrics["class_from_codes"]) >= {"nearest_centroid", "logistic_regression", "majority"}
    assert (output / ".done.json").is_file()
    assert not (output / "progress.json").exists()


def test_a_step_that_diverges_is_not_made(tmp_path: Path) -> None:
    training = state(tmp_path, "scratch", learning_rate=1e30, clip_norm=1e9)
    with pytest.raises(LossIsNaNError, match=r"codec: loss nan .*; lower learning_rate$"):
        training.run_epoch()


def test_the_learning_rate_falls_to_a_tenth_under_a_warm_up() -> None:
    factor = warm_cosine(total=100, warmup=20, last=0.1)
    assert [factor(step) for step in (0, 9, 19, 49)] == pytest.approx(
        [
            share * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
            for share, done in ((0.05, 0.01), (0.5, 0.1), (1, 0.2), (1, 0.5))
        ]
    )
    assert factor(99) == pytest.approx(0.1)
