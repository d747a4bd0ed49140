"""Load an experiment: YAML, overrides, and errors that say which key of which file is wrong."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from corpora.registry import Corpus
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.layers import PRESETS, apply_preset, read_layers, unshared
from ray_jobs.experiment.member_config import AnyMember

Schema = TypeVar("Schema", bound=BaseModel)


def load_experiment(path: str | Path, overrides: list[str] | None = None) -> Experiment:
    """Load an experiment file with `load_config`, and make its paths absolute.

    Raises:
        ConfigError: see `load_config`.
    """
    experiment = load_config(path, overrides or [], Experiment)
    # Ray's workers run in other directories, so every path is made absolute here, in the user's.
    experiment.storage_path = _absolute(experiment.storage_path)
    for corpus in experiment.corpora.values():
        _make_absolute(corpus, corpus.paths)
    experiment.exclusions.lists = [_absolute(path) for path in experiment.exclusions.lists]
    for member in experiment.members.values():
        _make_absolute(member, member.paths)
        _make_absolute(member, member.paths_or_names, or_name=True)
    return experiment


def load_config(path: str | Path, overrides: list[str], schema: type[Schema]) -> Schema:
    """Read a YAML file, apply `key.subkey=value` overrides (values are YAML), and validate it against `schema`.

    Overrides win over the file, the file over what it `extends`, and all of these over `presets` (`layers`).

    An override may reach several members: `members.*.training.epochs=1` all, `members.captioner-*.training.epochs=1`
    those whose names fit, `members.@captioner.training.epochs=1` those of a kind. Overrides apply in their order. Those
    of `training` pass over members that have none, where others have.

    Raises:
        ConfigError: naming file and key; for an unknown key also the nearest valid one.
    """
    layers = read_layers(Path(path))
    raw = layers.content
    if PRESETS in schema.model_fields and (preset := _preset(raw, overrides)) is not None:
        apply_preset(layers, preset)
    for override in overrides:
        _override(raw, override)
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(str(layers), problem, schema) for problem in error.errors())) from error


def _make_absolute(settings: BaseModel, keys: Iterable[str], *, or_name: bool = False) -> None:
    """Make the paths under dotted keys absolute; with `or_name`, only those of directories that there are."""
    for key in keys:
        *parents, last = key.split(".")
        node = reduce(getattr, parents, settings)
        path = getattr(node, last)
        if path and (not or_name or Path(path).expanduser().is_dir()):
            setattr(node, last, _absolute(path))


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().resolve())


def _preset(raw: dict[str, Any], overrides: list[str]) -> Any:
    """Return the preset that the last override names, or else the file; None if none does."""
    named: dict[str, Any] = {PRESETS: raw.get(PRESETS)}
    for override in overrides:
        if override.partition("=")[0] == PRESETS:
            _override(named, override)
    return named[PRESETS]


def _override(raw: dict[str, Any], override: str) -> None:
    """Set the value of `key.subkey=value` in each mapping that the dotted key names."""
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"{override!r}: expected key=value, for instance seed=1 or features.codebooks=4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r}: the value is not YAML: {error}") from error
    nodes = [raw]
    for key in (parts := dotted.split("."))[:-1]:
        if key == "training":  # a published detector is not trained
            nodes = [node for node in nodes if node.get(key)] or nodes
        nodes = [node.setdefault(name, {}) for node in nodes for name in _named(node, key, override)]
        if not all(isinstance(node, dict) for node in nodes):
            raise ConfigError(f"{override!r}: {key!r} holds a value, not keys")
    for node in nodes:
        for name in _named(node, parts[-1], override):
            node[name] = unshared(value)


def _named(node: dict[str, Any], key: str, override: str) -> list[str]:
    """Return the names in a mapping that a part of an override's key means.

    `@captioner` means all members of that kind, a part with a wildcard (`*`, `captioner-*`) all names that fit it, and
    any other part itself.
    """
    if key.startswith("@"):
        names = [name for name, value in node.items() if isinstance(value, dict) and value.get("kind") == key[1:]]
        choices = sorted({str(value["kind"]) for value in node.values() if isinstance(value, dict) and "kind" in value})
        what = f"of kind {key[1:]!r}"
    elif set(key) & set("*?["):
        names, choices, what = fnmatch.filter(node, key), list(node), f"like {key!r}"
    else:
        return [key]
    if not names:
        raise ConfigError(f"{override!r}: there is nothing {what}; there are: {', '.join(choices) or 'none'}")
    return names


def _kinds(union: Any) -> set[str]:
    """Return the values of `kind` in a discriminated union."""
    models = get_args(get_args(union)[0])
    return {kind for model in models for kind in get_args(model.model_fields["kind"].annotation)}


KINDS = _kinds(AnyMember) | _kinds(Corpus)


def _explain(file: str, problem: Any, schema: type[BaseModel]) -> str:
    # After a member's or corpus's name pydantic puts the kind that it chose; the file has no such key.
    parts = [str(part) for at, part in enumerate(problem["loc"]) if not (at == 2 and part in KINDS)]
    location, message = ".".join(parts), problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(str(problem["loc"][-1]), _all_keys(schema), n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        return f"{file}: unknown key {location!r}{hint}"
    # A rule between several keys has all of them as its input; its message names the one at fault.
    has_value = problem["type"] != "missing" and not isinstance(problem["input"], dict)
    found = f" (found {problem['input']!r})" if has_value else ""
    where = f"{location}: " if location else ""
    return f"{file}: {where}{message}{found if location else ''}"


def _all_keys(schema: type[BaseModel]) -> list[str]:
    """Return every key of the schema, for spelling hints."""
    keys: set[str] = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            keys.update(node.get("properties", {}))
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    collect(schema.model_json_schema())
    return sorted(keys)
