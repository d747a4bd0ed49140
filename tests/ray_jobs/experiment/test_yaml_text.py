"""What an experiment's YAML cannot say is refused with the file's name, whichever way PyYAML fails on it."""

from pathlib import Path

import pytest

from ray_jobs.experiment.config import ConfigError
from ray_jobs.experiment.loading import load_experiment

UNREADABLE = ["2024-02-30", "!!int foo", "!!float x", "!!timestamp foo", "!!bool maybe", "0b_", "[" * 5000]


@pytest.mark.parametrize("value", UNREADABLE)
def test_values_that_yaml_cannot_read_are_refused_by_file(value: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"name: {value}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"odd\.yaml"):
        load_experiment(path)


@pytest.mark.parametrize("value", ["2024-02-30", "!!int foo"])
def test_and_as_overrides_by_their_text(value: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("name: empty\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=value):
        load_experiment(path, [f"seed={value}"])
