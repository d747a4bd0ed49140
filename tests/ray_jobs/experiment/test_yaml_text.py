"""What an experiment's YAML cannot say is refused with the file's name, whichever way PyYAML fails on it."""

from pathlib import Path

import numpy as np
import pytest

from ray_jobs.experiment.config import ConfigError
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.yaml_text import load_yaml

NINEFOLD = "\n".join(["a0: &a0 [0]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))])
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10), ("0o10", 8), ("0x1F", 31), ("-3", -3), ("+4", 4), ("1e-3", 0.001), ("1E5", 1e5), (".5", 0.5),
        ("2.", 2.0), ("-.inf", -np.inf), ("8:00", "8:00"), ("2024-01-01", "2024-01-01"), ("no", "no"), ("On", "On"),
        ("true", True), ("False", False), ("~", None), ("", None), ("null", None), ("1_000", "1_000"), ("+", "+"),
        ("'010'", "010"), ("{<<: {a: 1, b: 2}, a: 3}", {"a": 3, "b": 2}), ("[&x [1], *x]", [[1], [1]]),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = load_yaml(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nname: a\nseed: 2\n", r"'seed' a second time(?s:.)*line 3"),
        ("members: {a: {x: 1, x: 1}}", "'x' a second time"),
        ("search: &a {trials: *a}", r"\*a refers to what it is part of"),
        ("search: &a [1, [*a]]", r"\*a refers to what it is part of"),
        (NINEFOLD, "values, expected 100,000 at most"),
    ],
)
def test_what_says_a_thing_twice_or_refers_to_itself_is_refused_by_file(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"(?s)twice\.yaml.*{message}"):
        load_experiment(path)
