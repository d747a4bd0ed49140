"""An experiment over the file that it extends and over a preset: which of them wins, and what errors name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.layers import FOLDER, read_layers
from ray_jobs.experiment.loading import load_experiment

ROOT = Path(__file__).parents[3]
SMOKE = ROOT / "experiments" / "smoke.yaml"
PRESETS = ("quick", "good", "best")


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


# --- extends -------------------------------------------------------------------------------------------------------


def test_a_file_holds_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "middle.yaml", {"extends": str(SMOKE), "seed": 3, "search": {"trials": 9}})
    members = {
        "captioner-wide": {"training": {"epochs": 7}},
        "captioner-deep": None,
    }
    top = write(tmp_path / "top.yaml", {"extends": "below/middle.yaml", "name": "top", "members": members})
    below, experiment = load_experiment(SMOKE), load_experiment(top)
    assert (experiment.name, experiment.seed, experiment.search.trials) == ("top", 3, 9)
    assert experiment.search.clips == below.search.clips
    assert list(experiment.members) == [name for name in below.members if name != "captioner-deep"]
    wide, wide_below = experiment.members["captioner-wide"].training, below.members["captioner-wide"].training
    assert wide_below
    assert wide == wide_below.model_copy(update={"epochs": 7})
    assert load_experiment(top, ["seed=5"]).seed == 5


def test_another_kind_replaces_a_mapping_and_lists_are_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", {"corpora": {"x": {"kind": "clotho", "root": "r", "splits": ["train", "test"]}}})
    folder = {"kind": "folder", "root": "mine"}
    other = write(tmp_path / "b.yaml", {"extends": "a.yaml", "corpora": {"x": folder}})
    assert read_layers(other).content == {"corpora": {"x": folder}}
    fewer = write(tmp_path / "c.yaml", {"extends": "a.yaml", "corpora": {"x": {"splits": ["test"]}}})
    assert read_layers(fewer).content["corpora"]["x"] == {"kind": "clotho", "root": "r", "splits": ["test"]}


def test_a_directory_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path}: found a directory, expected an experiment file$"):
        load_experiment(tmp_path)
    for name in ("b.yml", "a.yaml"):
        write(tmp_path / name, {"seed": 1})
    with pytest.raises(ConfigError, match=f"expected an experiment file; there are: {tmp_path}/a.yaml, {tmp_path}/b.y"):
        load_experiment(tmp_path)


def test_errors_name_the_file_and_what_extends_it(tmp_path: Path) -> None:
    top = write(tmp_path / "top.yaml", {"extends": "below.yaml"})
    with pytest.raises(ConfigError, match=r"top.yaml: extends: \S*below.yaml: no such file"):
        load_experiment(top)
    (tmp_path / "below.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"top.yaml: extends: \S*below.yaml: not YAML"):
        load_experiment(top)
    write(tmp_path / "below.yaml", {"extends": "top.yaml"})
    with pytest.raises(ConfigError, match=r"top.yaml: extends: \S*below.yaml: extends: \S*top.yaml: a circle"):
        load_experiment(top)
    write(tmp_path / "below.yaml", {"extends": str(SMOKE), "serach": {}})
    unknown = r"top.yaml \(extends \S*below.yaml, \S*smoke.yaml\): unknown key 'serach'.*; written in \S*below.yaml$"
    with pytest.raises(ConfigError, match=unknown):
        load_experiment(top)
    write(tmp_path / "below.yaml", {"extends": str(SMOKE), "search": {"trials": -1}})
    with pytest.raises(ConfigError, match=r"search.trials: .* \(found -1\); written in \S*below.yaml$"):
        load_experiment(top)
    with pytest.raises(ConfigError, match=r"search.trials: .* \(found -2\)$"):
        load_experiment(top, ["search.trials=-2"])
    write(top, {"extends": ["a.yaml", "b.yaml"]})
    with pytest.raises(ConfigError, match=r"extends: found \['a.yaml', 'b.yaml'\], expected the path of one file"):
        load_experiment(top)


# --- presets -------------------------------------------------------------------------------------------------------


def leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def preset(name: str) -> dict[str, Any]:
    return dict(leaves(yaml.safe_load((FOLDER / f"{name}.yaml").read_text())))


def bare(tmp_path: Path) -> Path:
    """Write the smoke experiment without all that any preset sets."""
    raw = read_layers(SMOKE).content
    for name in PRESETS:
        for key in preset(name):
            for node, last in nodes(raw, key):
                node.pop(last, None)
    return write(tmp_path / "bare.yaml", raw)


def nodes(raw: dict[str, Any], key: str) -> list[tuple[dict[str, Any], str]]:
    """Return the mappings in which a preset's key lies."""
    *parents, last = key.split(".")
    found = [raw]
    for parent in parents:
        if parent.startswith("@"):
            found = [one for node in found for one in node.values() if one["kind"] == parent[1:]]
        else:
            found = [node[parent] for node in found if parent in node]
    return [(node, last) for node in found]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_in_all_that_it_names(name: str, tmp_path: Path) -> None:
    file = bare(tmp_path)
    with pytest.raises(ConfigError, match=r"members.retriever-bge.training.epochs: Field required"):
        load_experiment(file)
    found = load_experiment(file, [f"presets={name}"])
    dumped = found.model_dump(mode="json")
    for key, value in preset(name).items():
        values = [node[last] for node, last in nodes(dumped, key)]
        assert values, key
        assert values == [value] * len(values), key
    assert dumped["presets"] == name


def test_the_file_wins_over_the_preset_and_the_command_line_over_both(tmp_path: Path) -> None:
    raw = yaml.safe_load(bare(tmp_path).read_text())
    raw |= {"presets": "quick", "search": {"trials": 33}, "beam": "enclap"}
    raw["members"]["captioner-wide"]["training"]["epochs"] = 17
    write(tmp_path / "bare.yaml", raw)
    top = write(tmp_path / "top.yaml", {"extends": "bare.yaml"})
    for file in (tmp_path / "bare.yaml", top):
        experiment = load_experiment(file)
        assert (experiment.search.trials, experiment.sampling.candidates) == (33, 10)
        assert experiment.beam.beams == 4, "those of EnCLAP"
        epochs = {name: member.epochs for name, member in experiment.members.items()}
        assert (epochs["captioner-wide"], epochs["captioner-deep"], epochs["fluency"]) == (17, 3, 1)
    other = load_experiment(top, ["search.trials=44", "presets=best", "members.@captioner.training.epochs=2"])
    assert (other.search.trials, other.search.rungs, other.sampling.candidates) == (44, 3, 50)
    assert {other.members[name].epochs for name in other.of_kind("captioner")} == {2}
    assert other.presets == "best"
    assert load_experiment(SMOKE, ["presets=best", "presets=null"]) == load_experiment(SMOKE)


def test_a_preset_trains_no_published_detector() -> None:
    published = "members.fluency={kind: fluency-detector, checkpoint: echecker.ckpt}"
    assert load_experiment(SMOKE, ["presets=best", published]).members["fluency"].training is None


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"smoke.yaml: presets: found 'bset', expected one of quick, good, best"):
        load_experiment(SMOKE, ["presets=bset"])


def test_an_experiment_without_a_preset_is_written_as_before() -> None:
    assert "presets" not in Experiment.model_dump(load_experiment(SMOKE))


def test_the_page_lists_every_preset() -> None:
    page = (ROOT / "docs" / "experiment.md").read_text()
    rows = {key: cells.split("|") for key, cells in re.findall(r"^\| `([\w.@-]+)` \|(.*)\|$", page, re.MULTILINE)}
    settings = {key for name in PRESETS for key in preset(name)}
    listed = {key for key, cells in rows.items() if len(cells) == len(PRESETS)}
    assert listed == settings
    for place, name in enumerate(PRESETS):
        told = {key: rows[key][place].strip() for key in settings if rows[key][place].strip()}
        assert told == {key: spell(value) for key, value in preset(name).items()}


def spell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value).lower()
