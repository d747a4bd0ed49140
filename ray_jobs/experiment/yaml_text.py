"""Read YAML as experiment files and overrides have it: values as version 1.2 has them, and nothing said twice."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import ComposerError

MOST_VALUES = 100_000  # of a text, with what its aliases stand for
TAG = "tag:yaml.org,2002:"


def load_yaml(text: str) -> Any:
    """Return what a YAML text says, by the core schema of YAML 1.2.

    PyYAML reads version 1.1, in which 8:00 is 480, 010 is 8, `no` is false and 2024-01-01 a date; here 010 is 10, and
    the others are text. A key that a mapping has twice, and an alias of what it is part of, are refused.

    Raises:
        yaml.YAMLError: if the text is not YAML, or says a thing twice, refers to itself, or holds too much.
    """
    try:
        found = yaml.load(text, Loader=_Loader)
        values = _count(found, {})
    except (ValueError, KeyError, AttributeError, RecursionError) as error:  # !!int foo, [[[[...
        raise yaml.YAMLError(f"holds what cannot be read ({type(error).__name__}: {error})") from error
    if values > MOST_VALUES:
        raise yaml.YAMLError(f"its aliases stand for {values:,} values, expected {MOST_VALUES:,} at most")
    return found


def kind_of(value: Any) -> str:
    """Return what a value is, in YAML's words."""
    if value is None:
        return "nothing"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return kinds.get(type(value), "a mapping")


def _count(value: Any, known: dict[int, int]) -> int:
    """Return the number of values in a value; what an alias shares is visited once, and counted each time."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 1 + sum(_count(one, known) for one in (value.values() if isinstance(value, dict) else value))
    return known[id(value)]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (those of YAML 1.2, added below)

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.unfinished: set[str] = set()  # anchors of what is being read

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent) and (alias := self.peek_event()).anchor in self.unfinished:
            raise ComposerError(None, None, f"*{alias.anchor} refers to what it is part of", alias.start_mark)
        return super().compose_node(parent, index)

    def compose_sequence_node(self, anchor: Any) -> Any:
        self.unfinished.add(anchor)
        node = super().compose_sequence_node(anchor)
        self.unfinished.discard(anchor)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        self.unfinished.add(anchor)
        node = super().compose_mapping_node(anchor)
        self.unfinished.discard(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (said := (key.tag, key.value)) in seen:
                    raise ComposerError(None, None, f"found {key.value!r} a second time", key.start_mark)
                seen.add(said)
        return node

    def construct_yaml_int(self, node: Any) -> int:
        text = self.construct_scalar(node).lower()
        return int(text, 0) if text.lstrip("+-")[:2] in ("0o", "0x") else int(text)


_Loader.add_constructor(f"{TAG}int", _Loader.construct_yaml_int)
for _kind, _text, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"{TAG}{_kind}", re.compile(f"^(?:{_text})$"), list(_first))
