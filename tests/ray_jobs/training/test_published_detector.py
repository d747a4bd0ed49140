"""FENSE's published detector as a member: nothing is trained, and all else is as of any member."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import yaml
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from models.fluency.detector import FluencyDetector
from ray_jobs import export
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.member import MemberMetrics, checked_weights
from ray_jobs.run.directory import RunDirectory, is_done, mark_done
from ray_jobs.status import read_status
from ray_jobs.training.job import TrainingRequest
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.memory import layout, worker_memory
from ray_jobs.training.plan import by_critical_path
from ray_jobs.training.tasks.fluency import FluencyTask
from ray_jobs.training.trainer import work
from ray_jobs.tuning.sweep_space import space

from ...models.fluency.published_checker import TEXTS, TINY, Classifier, write_encoder
from ..conftest import ROOT
from ..example_results import ensemble_metrics
from ..small_training import MEMBER, write_experiment


@pytest.fixture
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def published_experiment(folder: Path) -> Path:
    """The file of an experiment whose only member is a published detector, and that detector's files."""
    path = write_experiment(folder, 1, {})
    Classifier(write_encoder(folder / "bert", TINY)).save(folder / "echecker.ckpt")
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    files = {"checkpoint": str(folder / "echecker.ckpt"), "text_encoder": str(folder / "bert")}
    raw["members"][MEMBER] = {"kind": "fluency-detector", **files}
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return load_experiment(published_experiment(tmp_path / "small"))


def publish(experiment: Experiment) -> RunDirectory:
    """Do in this process what `train` has a worker do (Ray Train's local mode)."""
    directory = RunDirectory(experiment)
    directory.write_experiment()
    request = TrainingRequest(MemberJob.of(experiment, directory, MEMBER), commit="of the code", progress=None)
    TorchTrainer(partial(work, request), scaling_config=ScalingConfig(num_workers=0)).fit()
    return directory


def test_it_is_published_as_it_is_once(
    experiment: Experiment, tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier(tmp_path / "small" / "bert")
    directory = publish(experiment)
    path = directory.member(MEMBER)
    assert is_done(path, directory.member_inputs(MEMBER))
    metrics = MemberMetrics.read(path)
    assert (metrics.epochs, metrics.kept_epochs, metrics.seconds, metrics.chosen_by) == (0, [0], 0.0, "f1")
    assert metrics.parameters == sum(parameter.numel() for parameter in classifier.parameters())
    assert {"precision", "recall", "f1"} <= metrics.best.keys(), "measured on the validation split"
    assert pd.read_parquet(path / "history.parquet")["epoch"].tolist() == [0]
    loaded = FluencyDetector.load(checked_weights(path))
    np.testing.assert_allclose(loaded.fluency_error(TEXTS), classifier.probabilities(TEXTS)[:, -1], atol=1e-5, rtol=0)
    monkeypatch.setattr(FluencyTask, "create", lambda self: pytest.fail("it is there already"))
    publish(experiment)
    status = read_status(directory.root).members[0]
    assert (status.state, status.epoch, status.seconds_per_epoch) == ("done", 0, None)
    assert status.note == "published weights, not trained"


def test_it_is_planned_without_epochs_and_with_its_weights_alone(experiment: Experiment) -> None:
    memory = worker_memory(experiment, MEMBER)
    assert memory
    parameters = sum(p.numel() for p in layout(experiment, MEMBER).parameters())
    assert (memory.state, memory.activations) == (4 * parameters, 0)
    assert by_critical_path(experiment, {MEMBER}) == [MEMBER]
    assert experiment.members[MEMBER].epochs == 0
    with pytest.raises(ConfigError, match=rf"'{MEMBER}' is published as it is \(members\.{MEMBER}\.checkpoint\)"):
        space(experiment, MEMBER)


def test_its_bundle_needs_neither_the_published_file_nor_the_encoders(
    experiment: Experiment, tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Classifier(tmp_path / "small" / "bert").probabilities(TEXTS)[:, -1]
    directory = publish(experiment)
    directory.ensemble.mkdir()
    mark_done(directory.ensemble, directory.search_inputs())
    (tmp_path / "small" / "bert").rename(tmp_path / "elsewhere")
    (tmp_path / "small" / "echecker.ckpt").unlink()

    class Written:
        def save(self, path: Path) -> None: ...
        def needed_columns(self) -> list[str]:
            return []

        def model_dump_json(self, indent: int) -> str:
            return "{}"

    monkeypatch.setattr(export, "load_codec", lambda *_: Written())
    monkeypatch.setattr(export, "_manifest", lambda *_: Written())
    monkeypatch.setattr(export.Choices, "searched", lambda _: None)
    monkeypatch.setattr(export, "write_self_test", lambda *_: None)  # which needs the other members
    metrics = ensemble_metrics(load_experiment(ROOT / "experiments" / "smoke.yaml"))
    monkeypatch.setattr(export.EnsembleMetrics, "read", lambda *_: metrics)
    export.run(experiment)
    loaded = FluencyDetector.load(directory.bundle / "members" / MEMBER)
    np.testing.assert_allclose(loaded.fluency_error(TEXTS), expected, atol=1e-5, rtol=0)
    assert f"- {MEMBER}: the weights of echecker.ckpt as they were published" in (
        directory.bundle / "NOTICE"
    ).read_text(encoding="utf-8")


def test_an_override_of_all_trainings_passes_over_it(tmp_path: Path) -> None:
    path = published_experiment(tmp_path / "small")
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    own = {"kind": "fluency-detector", "training": {"epochs": 3, "learning_rate": 1e-3}}
    raw["members"]["own"] = own
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    members = load_experiment(path, ["members.*.training.epochs=1", "members.*.resources.workers=2"]).members
    assert {name: member.epochs for name, member in members.items()} == {MEMBER: 0, "own": 1}
    assert members[MEMBER].resources.workers == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"epochs": 1, "learning_rate": 1e-3}}, "training: has no effect on the published detector"),
        ({"corpora": ["sounds"]}, "corpora: has no effect on the published detector"),
        ({"init_from": "own"}, "init_from: has no effect on the published detector"),
        ({"checkpoint": None}, "training: missing; expected it, or `checkpoint`"),
    ],
)
def test_what_has_no_effect_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = published_experiment(tmp_path / "small")
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["members"][MEMBER] |= changes
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"small\.yaml: members\.{MEMBER}: {message}"):
        load_experiment(path)


def test_it_is_not_trained_further(tmp_path: Path) -> None:
    path = published_experiment(tmp_path / "small")
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    training = {"epochs": 3, "learning_rate": 1e-3}
    raw["members"]["own"] = {"kind": "fluency-detector", "training": training, "init_from": MEMBER}
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"members\.own\.init_from: '{MEMBER}' is published as it is"):
        load_experiment(path)
