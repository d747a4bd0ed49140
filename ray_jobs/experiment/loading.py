"""Load an experiment: YAML, overrides, and errors that say which key of which file is wrong."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from corpora.registry import Corpus
from ray_jobs.experiment.codec_config import CodecExperiment
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.layers import PRESETS, Layers, apply_preset, read_layers, unshared
from ray_jobs.experiment.member_config import AnyMember
from ray_jobs.experiment.spelling import did_you_mean, unknown
from ray_jobs.experiment.yaml_text import kind_of, load_yaml

ARMS = "arms"  # of an ablation (ray_jobs.ablation.arms)
PATH_BEGINS = ("~", "/", "./", "../")  # and no name of a model
NO_MAPPING = {"dict_type", "model_type", "model_attributes_type"}  # pydantic's errors, which speak of dictionaries
NOT_PLAIN = tuple("\"'|>&!*")  # begin text in YAML that does not stand for itself

Schema = TypeVar("Schema", bound=BaseModel)


def load_experiment(path: str | Path, overrides: list[str] | None = None) -> Experiment:
    """Load an experiment file with `load_config`, and make its paths absolute.

    Raises:
        ConfigError: see `load_config`.
    """
    return resolve(read_layers(Path(path)), overrides or [])


def resolve(layers: Layers, overrides: list[str]) -> Experiment:
    """Return the experiment that files and overrides make together, its paths absolute.

    Raises:
        ConfigError: see `load_config`.
    """
    experiment = _overridden(layers, overrides, Experiment)
    # Ray's workers run in other directories, so every path is made absolute here, in the user's.
    experiment.storage_path = _absolute(experiment.storage_path)
    for corpus in experiment.corpora.values():
        _make_absolute(corpus, corpus.paths)
    experiment.exclusions.lists = [_absolute(path) for path in experiment.exclusions.lists]
    experiment.features.codec = _codec(experiment.features.codec)
    for member in experiment.members.values():
        _make_absolute(member, member.paths)
        _make_absolute(member, member.paths_or_names, or_name=True)
    return experiment


def load_codec_experiment(path: str | Path, overrides: list[str] | None = None) -> CodecExperiment:
    """Load the file of a codec's training with `load_config`, and make its directory absolute.

    Raises:
        ConfigError: see `load_config`.
    """
    loaded = load_config(path, overrides or [], CodecExperiment)
    if "://" in loaded.storage_path:
        raise ConfigError(
            f"{path}: storage_path: found {loaded.storage_path!r}, expected a directory: a codec is small"
        )
    loaded.storage_path = _absolute(loaded.storage_path)
    return loaded


def load_config(path: str | Path, overrides: list[str], schema: type[Schema]) -> Schema:
    """Read a YAML file, apply `key.subkey=value` overrides (values are YAML), and validate it against `schema`.

    Overrides win over the file, the file over what it `extends`, and all of these over `presets` (`layers`).

    An override may reach several members: `members.*.training.epochs=1` all, `members.captioner-*.training.epochs=1`
    those whose names fit, `members.@captioner.training.epochs=1` those of a kind. Overrides apply in their order. Those
    of `training` pass over members that have none, where others have.

    Raises:
        ConfigError: naming file and key; for an unknown key also the nearest valid one.
    """
    return _overridden(read_layers(Path(path)), overrides, schema)


def _overridden(layers: Layers, overrides: list[str], schema: type[Schema]) -> Schema:
    raw = layers.content
    if ARMS in raw and ARMS not in schema.model_fields:
        raise ConfigError(
            f"{layers}: found an ablation, by its `{ARMS}`, expected one experiment; `enclap ablate` runs it"
        )
    if PRESETS in schema.model_fields and (preset := _preset(raw, overrides)) is not None:
        apply_preset(layers, preset)
    for override in overrides:
        set_override(raw, override)
    _check_kinds(layers, overrides)
    return validated(layers, raw, schema)


def validated(layers: Layers, raw: dict[str, Any], schema: type[Schema]) -> Schema:
    """Return what files say as their schema has it.

    Raises:
        ConfigError: naming the file and each key that the schema refuses.
    """
    try:
        found = schema.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(layers, problem, schema) for problem in error.errors())) from error
    if problems := [
        f"{layers}: {'.'.join(map(str, keys))}: expected a number (found {value}){layers.origin(keys, value)}"
        for keys, value in _truths_as_numbers(raw, found)
    ]:
        raise ConfigError("\n".join(problems))
    return found


def _truths_as_numbers(raw: Any, found: Any) -> Iterator[tuple[list[str | int], bool]]:
    """Yield the keys and values of what is true or false in a file, and was read as 1 or 0."""
    if isinstance(raw, bool) and isinstance(found, int | float) and not isinstance(found, bool):
        yield [], raw
    inner: Iterable[tuple[Any, Any, Any]] = ()
    if isinstance(raw, dict) and isinstance(found, BaseModel):
        inner = ((key, value, getattr(found, key, None)) for key, value in raw.items())
    elif isinstance(raw, dict) and isinstance(found, dict):
        inner = ((key, value, found.get(key)) for key, value in raw.items())
    elif isinstance(raw, list) and isinstance(found, list | tuple):
        inner = ((at, *both) for at, both in enumerate(zip(raw, found)))
    for key, value, read in inner:
        for keys, truth in _truths_as_numbers(value, read):
            yield [key, *keys], truth


def _make_absolute(settings: BaseModel, keys: Iterable[str], *, or_name: bool = False) -> None:
    """Make the paths under dotted keys absolute; with `or_name`, only what is a path and no name."""
    for key in keys:
        *parents, last = key.split(".")
        node = reduce(getattr, parents, settings)
        path = getattr(node, last)
        if path and (not or_name or _is_path(path)):
            setattr(node, last, _absolute(path))


def _is_path(value: str) -> bool:
    """Return whether a directory, or the hub id of a model, is a directory: by its beginning, or as it is there."""
    return value.startswith(PATH_BEGINS) or os.path.isdir(value)


def _codec(source: str) -> str:
    """Return a codec with its path absolute, if it is a path: the name of a codec comes before a directory's."""
    return _absolute(source) if os.path.isfile(source) or ("/" in source and _is_path(source)) else source


def _absolute(path: str) -> str:
    return path if "://" in path else str(_expanded(path).resolve())


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path!r}: there is no such home directory; expected the whole path") from error


def _preset(raw: dict[str, Any], overrides: list[str]) -> Any:
    """Return the preset that the last override names, or else the file; None if none does."""
    named: dict[str, Any] = {PRESETS: raw.get(PRESETS)}
    for override in overrides:
        if override.partition("=")[0] == PRESETS:
            set_override(named, override)
    return named[PRESETS]


def set_override(raw: dict[str, Any], override: str) -> None:
    """Set the value of `key.subkey=value` in each mapping that the dotted key names.

    Raises:
        ConfigError: if it is none, or reaches nothing.
    """
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"{override!r}: expected key=value, for instance seed=1 or features.codebooks=4")
    try:
        value = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r}: the value is not YAML: {error}") from error
    if isinstance(value, str) and not text.lstrip().startswith(NOT_PLAIN):
        value = text.strip()  # as it stands: YAML would take ` #3` for a comment
    nodes = [raw]
    for key in (parts := _parts(raw, dotted))[:-1]:
        if key == "training":  # a published detector is not trained
            nodes = [node for node in nodes if node.get(key)] or nodes
        nodes = [node.setdefault(name, {}) for node in nodes for name in _named(node, key, override)]
        if not all(isinstance(node, dict) for node in nodes):
            raise ConfigError(f"{override!r}: {key!r} holds a value, not keys")
    for node in nodes:
        for name in _named(node, parts[-1], override):
            node[name] = unshared(value)


def _parts(raw: dict[str, Any], dotted: str) -> list[str]:
    """Return the keys that a dotted key joins; the name of a member or corpus may have dots itself."""
    first, _, rest = dotted.partition(".")
    below = raw.get(first)
    dotted_names = [name for name in below if "." in str(name)] if isinstance(below, dict) else []
    for name in sorted(map(str, dotted_names), key=len, reverse=True):
        if rest == name:
            return [first, name]
        if rest.startswith(f"{name}."):
            return [first, name, *rest.removeprefix(f"{name}.").split(".")]
    return dotted.split(".")


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
        raise ConfigError(
            f"{override!r}: there is nothing {what}; there are: {', '.join(choices) or 'none'}"
            f"{did_you_mean(key.strip('@*?'), choices)}"
        )
    return names


def _kinds(union: Any) -> list[str]:
    """Return the values of `kind` in a discriminated union."""
    models = get_args(get_args(union)[0])
    return [kind for model in models for kind in get_args(model.model_fields["kind"].annotation)]


KINDS = {"members": _kinds(AnyMember), "corpora": _kinds(Corpus)}


def _check_kinds(layers: Layers, overrides: list[str]) -> None:
    """Check that every member and corpus has a kind: one that an override made in error, of a mistyped name, has none.

    Raises:
        ConfigError: naming the override, or else the file, and the nearest name that there is.
    """
    for section, kinds in KINDS.items():
        found = layers.content.get(section)
        named = found.items() if isinstance(found, dict) else ()
        there = [name for name, value in named if isinstance(value, dict) and "kind" in value]
        for name in [name for name, value in named if isinstance(value, dict) and "kind" not in value]:
            key = f"{section}.{name}"
            for override in overrides:
                if override.startswith(f"{key}."):
                    raise ConfigError(f"{override!r}: {unknown(name, there, section)}")
            raise ConfigError(f"{layers}: {key}.kind: missing; expected one of {', '.join(kinds)}")


def explain(layers: Layers, problem: Any, schema: type[BaseModel]) -> str:
    """Return a message on a problem that pydantic found, which names file, key, what was found and expected."""
    # After a member's or corpus's name pydantic puts the kind that it chose; the file has no such key.
    kinds = KINDS.get(problem["loc"][0], ()) if problem["loc"] else ()
    keys = [part for at, part in enumerate(problem["loc"]) if not (at == 2 and part in kinds)]
    location, message = ".".join(map(str, keys)), problem["msg"].removeprefix("Value error, ")
    return f"{layers}: {_said(location, message, problem, kinds, schema)}{layers.origin(keys, problem['input'])}"


def _said(location: str, message: str, problem: Any, kinds: Sequence[str], schema: type[BaseModel]) -> str:
    if problem["type"] == "extra_forbidden":
        return f"unknown key {location!r}{did_you_mean(problem['loc'][-1], _all_keys(schema))}"
    if problem["type"] == "union_tag_invalid":
        tag = problem["ctx"]["tag"]
        return f"{location}.kind: found {tag!r}, expected one of {', '.join(kinds)}{did_you_mean(tag, kinds)}"
    where = f"{location}: " if location else ""
    if problem["type"] == "too_short":
        return f"{where}found {problem['ctx']['actual_length']}, expected at least {problem['ctx']['min_length']}"
    if problem["type"] in NO_MAPPING:
        return f"{where}found {kind_of(problem['input'])}, expected a mapping of keys to values"
    # A rule between several keys has all of them as its input; its message names the one at fault.
    has_value = problem["type"] != "missing" and not isinstance(problem["input"], dict)
    found = f" (found {problem['input']!r})" if has_value else ""
    choices = re.findall(r"'([^']*)'", problem["ctx"]["expected"]) if problem["type"] == "literal_error" else []
    return f"{where}{message}{found if location else ''}{did_you_mean(problem['input'], choices)}"


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
