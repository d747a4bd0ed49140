"""Arms and seeds as experiments of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ray_jobs.ablation.arms import load_ablation
from ray_jobs.cli import main
from ray_jobs.experiment.config import ConfigError
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.run.directory import RunDirectory

from .small_ablation import FILES, ROOT, write


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_ablations(file: Path) -> None:
    ablation = load_ablation(file)
    assert ablation.name == file.stem
    assert ablation.seeds == [0, 1, 2]
    assert len(ablation.runs) == 3 * len(ablation.arms)
    differing = [run.experiment.model_dump(exclude={"name"}) for run in ablation.runs if run.seed == 0]
    assert all(one != other for at, one in enumerate(differing) for other in differing[:at])


def test_runs_are_experiments_of_their_own(tmp_path: Path) -> None:
    ablation = load_ablation(write(tmp_path), ["search.trials=9", "seeds=[4,5]", "name=mine"])
    assert [(run.arm, run.seed) for run in ablation.runs] == [
        (arm, seed) for arm in ("plain", "smoothed") for seed in (4, 5)
    ]
    assert ablation.root == tmp_path / "runs" / "ablations" / "mine"
    last = ablation.runs[-1].experiment
    assert (last.name, last.seed, last.search.trials) == ("smoothed-seed5", 5, 9)
    assert RunDirectory(last).root == ablation.root / "smoothed-seed5"
    smoothing = [run.experiment.members["captioner-wide"].label_smoothing for run in ablation.runs]  # type: ignore[union-attr]
    assert smoothing == [0.2, 0.2, 0.3, 0.3]


NINE = r"arms\.plain: corpora\.soundscapes\.splits\.test: found \d+, expected 9 as of arms\.b: .* the same clips"


@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({"seeds": None}, [], r"smoothing.yaml \(extends \S*smoke.yaml\): seeds: missing; expected a list"),
        ({"seeds": [1, 1]}, [], "smoothing.yaml .*: seeds: a seed is named twice"),
        ({"arms": {"plain": None}}, [], "smoothing.yaml .*: arms: found 1, expected at least 2"),
        ({"arms": {"plain": None, "b": {"serach": 1}}}, [], "smoothing.yaml .*: arms.b: unknown key 'serach'"),
        ({"arms": {"plain": None, "b": {"seed": 1}}}, [], "arms.b.seed: found 1, expected none"),
        ({"arms": {"plain": None, "../b": {}}}, [], "smoothing.yaml .*: arms"),
        ({"time_limit": "1h"}, [], "arms.plain.time_limit: expected none"),
        ({"arms": {"plain": None, "b": {"corpora": {"soundscapes": {"splits": {"test": 9}}}}}}, [], NINE),
        ({"arms": "plain"}, [], "arms: found text, expected a mapping of keys to values"),
        ({}, ["seed=3"], "'seed=3': an ablation's arms are those of its file"),
        ({}, ["seeds=[]"], "seeds: found 0, expected at least 1"),
    ],
)
def test_bad_ablations_are_refused(tmp_path: Path, changes: Any, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_ablation(write(tmp_path, **changes), overrides)


def test_a_command_for_experiments_says_what_runs_an_ablation(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"smoothing\.yaml .*: found an ablation, by its `arms`, .*`enclap ablate` runs"
    ):
        load_experiment(write(tmp_path))


def test_bad_input_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ablate", str(ROOT / "experiments" / "demo.yaml")])
    assert ended.value.code == 2
    assert "demo.yaml: seeds: missing" in capsys.readouterr().err
