"""The settings that a sweep varies, and the experiment it writes; no Ray."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ray_jobs import sweep
from ray_jobs.experiment.config import ConfigError
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.results.best import BestSweep
from ray_jobs.tuning.sweep_space import own_value, space, with_settings

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("name", ["demo", "smoke"])
def test_every_space_fits_its_kind_and_holds_the_own_value(name: str) -> None:
    experiment = load_experiment(EXPERIMENTS / f"{name}.yaml")
    for member in experiment.members:
        domains = space(experiment, member)
        assert "training.learning_rate" in domains
        for field, domain in domains.items():
            assert domain.lower <= own_value(experiment, member, field) <= domain.upper
            assert domain.lower < domain.upper


def test_the_experiment_that_is_written_can_be_trained(tmp_path: Path) -> None:
    experiment = load_experiment(EXPERIMENTS / "smoke.yaml", [f"storage_path={tmp_path}"])
    settings = {"training.learning_rate": 0.0123, "mcm_weight": 0.25, "label_smoothing": 0.05}
    found = with_settings(experiment, "captioner-deep", settings)
    path = tmp_path / "best.yaml"
    path.write_text(yaml.safe_dump(found.model_dump(mode="json"), sort_keys=False))
    loaded = load_experiment(path)
    assert loaded == found
    deep = loaded.members["captioner-deep"].training
    assert deep
    assert deep.learning_rate == 0.0123
    assert loaded.members["captioner-wide"] == experiment.members["captioner-wide"]


def test_what_a_model_is_made_of_can_vary_too() -> None:
    experiment = load_experiment(EXPERIMENTS / "smoke.yaml", ["sweep.space=text-encoder"])
    domain = space(experiment, "retriever-bge")["text_encoder.name"]
    assert domain.categories[0] == "random:bert"
    found = with_settings(experiment, "retriever-bge", {"text_encoder.name": domain.categories[1]})
    assert own_value(found, "retriever-bge", "text_encoder.name") == "BAAI/bge-base-en-v1.5"


def test_bad_sweeps_are_named(tmp_path: Path) -> None:
    smoke = EXPERIMENTS / "smoke.yaml"
    with pytest.raises(ConfigError, match="'captioner' is not among members"):
        space(load_experiment(smoke), "captioner")
    with pytest.raises(ConfigError, match=r"sweep\.space: found 'wide', expected one of retriever"):
        space(load_experiment(smoke, ["sweep.space=wide"]), "fluency")
    with pytest.raises(ConfigError, match="varies mcm_weight, which a fluency-detector does not have"):
        space(load_experiment(smoke, ["sweep.space=captioner"]), "fluency")
    with pytest.raises(ConfigError, match=r"exchange_epochs: found 2, expected less than the 2 epochs"):
        space(load_experiment(smoke, ["sweep.scheduler=pbt"]), "captioner-wide")
    with pytest.raises(ConfigError, match=r"sweep\.trials: found 1"):
        space(
            load_experiment(smoke, ["sweep.scheduler=pbt", "sweep.exchange_epochs=1", "sweep.trials=1"]),
            "captioner-wide",
        )
    with pytest.raises(ConfigError, match=r"text_encoder\.name is not a number that could change there; use asha"):
        space(load_experiment(smoke, ["sweep.scheduler=pbt", "sweep.space=text-encoder"]), "retriever-bge")
    with pytest.raises(ConfigError, match="epsilon"):
        with_settings(load_experiment(smoke), "retriever-bge", {"epsilon": -1.0})


KEYS = ["member", "settings", "chosen_by", "value", "own_value", "trials", "split", "seed", "commit"]


@pytest.mark.parametrize("own", [True, False], ids=["own trial", "own trial failed"])
@pytest.mark.parametrize("population", [False, True])
def test_what_was_found_is_read_as_it_was_written(tmp_path: Path, own: bool, population: bool) -> None:
    experiment = load_experiment(EXPERIMENTS / "smoke.yaml", ["seed=3"])
    rate = "training.learning_rate"
    trials = pd.DataFrame({rate: np.array([0.001, 0.02]), "f1": np.array([0.5, 0.75]), "own": [own, False]})
    schedule: list[dict[str, Any]] = [{"after_epoch": 0, "settings": {rate: 0.001}}]
    if population:
        (tmp_path / "trained").mkdir()
        (tmp_path / "trained" / "model.safetensors").touch()
        trials = trials.assign(schedule=json.dumps(schedule), output=str(tmp_path / "trained"))
    target = tmp_path / "sweep"
    best = sweep._best(experiment, "fluency", [rate], trials, trials.iloc[1], "f1")
    sweep._write(target, experiment, best, trials, trials.iloc[1])
    assert BestSweep.read(target) == best
    content = json.loads((target / "best.json").read_text(encoding="utf-8"))
    assert list(content) == [*KEYS, *(["schedule"] if population else [])]
    assert (content["member"], content["settings"], content["chosen_by"]) == ("fluency", {rate: 0.02}, "f1")
    assert (content["value"], content["own_value"], content["trials"]) == (0.75, 0.5 if own else None, 2)
    assert (content["split"], content["seed"]) == ("validation", 3)
    assert content.get("schedule") == (schedule if population else None)
    assert (target / "model" / "model.safetensors").is_file() == population
    trained = load_experiment(target / "best.yaml").members["fluency"]
    assert trained.training
    assert trained.training.learning_rate == 0.02
