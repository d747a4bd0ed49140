"""Lay an experiment file over the file that it extends and over a preset.

What a file says wins over what it extends, and both win over the preset: a preset only fills in what they leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import yaml

from models.files import refuse_pointer
from ray_jobs.experiment.config import ConfigError, Preset
from ray_jobs.experiment.spelling import did_you_mean
from ray_jobs.experiment.yaml_text import kind_of, load_yaml

EXTENDS, PRESETS = "extends", "presets"
FOLDER = Path(__file__).parent / "presets"
EXPERIMENT_FILES = (".yaml", ".yml")
RECORD, RECORD_KEYS = "experiment.yaml", {"experiment", "provenance"}  # of a run: what it was made from


@dataclass(frozen=True)
class Layers:
    """What an experiment's files say together, the first over the others."""

    content: dict[str, Any]
    files: list[Path]
    said: list[tuple[Path, dict[str, Any]]]  # each file with what it says itself
    part: str = ""  # of the first file that is meant, for messages

    def __str__(self) -> str:
        first, *below = map(str, self.files)
        named = f"{first} (extends {', '.join(below)})" if below else first
        return f"{named}: {self.part}" if self.part else named

    def with_delta(self, delta: dict[str, Any], part: str) -> Layers:
        """Return these layers below what a part of the first file says."""
        content = merged(unshared(self.content), unshared(delta))
        return replace(self, content=content, said=[(self.files[0], delta), *self.said], part=part)

    def origin(self, location: Sequence[str | int], value: Any) -> str:
        """Return which of the files below the first one gives a key its value, for the end of a message; else nothing.

        Args:
            location: the keys that lead there.
        """
        for file, node in self.said:
            for key in location:
                if not isinstance(node, dict) or key not in node:
                    break
                node = node[key]
            else:
                return f"; written in {file}" if node == value and file != self.files[0] else ""
        return ""


def read_layers(path: Path, extended_by: Sequence[Path] = ()) -> Layers:
    """Read a YAML file over the file that its `extends` names, relative to it, and so on.

    Mappings are merged key by key; any other value replaces that below, and so does a mapping of another `kind`. A null
    in place of a mapping removes it.

    Args:
        extended_by: the files that led here, to find circles.

    Raises:
        ConfigError: naming the file that is missing, no YAML mapping, the record of a run, or extends itself, and those
            that extend it.
    """
    path = Path(path)
    chain = "".join(f"{file}: extends: " for file in extended_by)
    if path.resolve() in {file.resolve() for file in extended_by}:
        raise ConfigError(f"{chain}{path}: a circle; expected files that do not extend themselves")
    raw = unshared(_read_mapping(path, chain))
    below = raw.pop(EXTENDS, None)
    if below is None:
        return Layers(raw, [path], [(path, unshared(raw))])
    if not isinstance(below, str) or not below:
        raise ConfigError(f"{chain}{path}: extends: found {below!r}, expected the path of one file, relative to this")
    under = read_layers(path.parent / below, [*extended_by, path])
    return Layers(merged(under.content, raw), [path, *under.files], [(path, unshared(raw)), *under.said])


def _read_mapping(path: Path, chain: str) -> dict[str, Any]:
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.suffix in EXPERIMENT_FILES)
        if path / RECORD in inside:
            _read_mapping(path / RECORD, chain)  # refuses that of a run
        there = f"; there are: {', '.join(map(str, inside))}" if inside else ""
        raise ConfigError(f"{chain}{path}: found a directory, expected an experiment file{there}")
    if not path.is_file():
        expected = "" if chain else "; expected an experiment such as experiments/demo.yaml"
        raise ConfigError(f"{chain}{path}: no such file{expected}")
    try:
        text = path.read_text(encoding="utf-8")
        refuse_pointer(text, f"{chain}{path}", "experiment", ConfigError)
        raw = load_yaml(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{chain}{path}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{chain}{path}: found {kind_of(raw)}, expected a mapping of keys to values")
    if raw.keys() == RECORD_KEYS:
        raise ConfigError(
            f"{chain}{path}: found the record of a run, expected the experiment file that it was made from; "
            f"`enclap status`, `report` and `leaderboard` take the run's directory, {path.parent}"
        )
    return raw


def apply_preset(layers: Layers, name: Any) -> None:
    """Fill in what an experiment leaves out, from the preset of a name.

    Raises:
        ConfigError: if there is no such preset.
    """
    known = get_args(Preset)
    if name not in known:
        raise ConfigError(
            f"{layers}: presets: found {name!r}, expected one of {', '.join(known)}{did_you_mean(name, known)}"
        )
    _fill(layers.content, load_yaml((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def unshared(node: Any) -> Any:
    """Copy every node that YAML anchors share, so that an override of one member leaves the others alone."""
    if isinstance(node, dict):
        return {key: unshared(value) for key, value in node.items()}
    return [unshared(value) for value in node] if isinstance(node, list) else node


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return what two files say together, the second over the first; see `read_layers`."""
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        if isinstance(old, dict) and value is None:
            del found[key]
        elif (
            isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            found[key] = merged(old, value)
        else:
            found[key] = value
    return found


def _fill(node: dict[str, Any], preset: dict[str, Any]) -> None:
    """Set what a mapping lacks; `@captioner` stands for all members of that kind."""
    for key, value in preset.items():
        if key.startswith("@"):
            for member in node.values():
                if isinstance(member, dict) and member.get("kind") == key[1:]:
                    _fill(member, value)
        elif not isinstance(value, dict):
            node.setdefault(key, unshared(value))
        elif key != "training" or key in node:  # a published detector is not trained
            inner = node.setdefault(key, {})
            if isinstance(inner, dict):  # `beam: enclap` is a setting of its own
                _fill(inner, value)
