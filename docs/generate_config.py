"""Write docs/config.md: every field of an experiment, from the schema that checks it.

    python docs/generate_config.py

A test fails when the page no longer matches the schema.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray_jobs.experiment.codec_config import CodecExperiment
from ray_jobs.experiment.config import Experiment

PAGE = Path(__file__).with_name("config.md")
INTRODUCTION = """\
# Every field

Every field of an [experiment file](experiment.md) with its type and bounds, its default and its meaning. A field whose
default is *none* may be left out; its meaning says what happens then. An unknown key is an error that names the nearest
valid one.

This page is generated from the schema by `python docs/generate_config.py`; edit the descriptions there.
"""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
CODE = re.compile(r"(`[^`]*`)")
Node = dict[str, Any]  # of a JSON schema


class Reference:
    """The sections on one schema: a table of fields for the model itself and for every model inside it."""

    def __init__(self, schema: Node, title: str, group: str = "") -> None:
        """Take the JSON schema of a pydantic model.

        Args:
            schema: as `model_json_schema` gives it.
            title: of the section on the model itself.
            group: prefix of all other titles, so that two schemas can share a page.
        """
        self.schema, self.title = schema, title
        self.models: dict[str, Node] = schema.get("$defs", {})
        self.titles: dict[str, str] = {}  # by the name of a model, in the order of the page
        self._collect_titles(schema, group)

    def __str__(self) -> str:
        sections = [_section(self.title, self.schema["description"], self._table(self.schema))]
        for name, title in self.titles.items():
            sections.append(_section(title, self.models[name]["description"], self._table(self.models[name])))
        return "\n".join(sections)

    def _collect_titles(self, model: Node, group: str) -> None:
        """Name the sections: `features`, `features: log_mel`, `members: captioner`, `members: training`."""
        of_page = {name for node in self.schema["properties"].values() for name in _models_in(node)}
        for field, node in model["properties"].items():
            for name in _models_in(node):
                if name in self.titles or (name in of_page and model is not self.schema):
                    continue
                kind = self._kind(name)
                title = group + (f"{field}: {kind}" if kind else field)
                if title in self.titles.values():  # fields of one name in two kinds
                    title += f" of a {model['properties']['kind']['const']}"
                self.titles[name] = title
                self._collect_titles(self.models[name], group or f"{field}: ")

    def _kind(self, name: str) -> str | None:
        """Return the value of `kind` by which a model is told from the others of its union."""
        return self.models[name]["properties"].get("kind", {}).get("const")

    def _table(self, model: Node) -> str:
        rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
        for field, node in model["properties"].items():
            default = "required" if field in model.get("required", []) else self._default(node)
            cells = (f"`{field}`", self._type(node), default, _text(self._meaning(node)))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join(rows)

    def _meaning(self, node: Node) -> str:
        """Return a field's description; of a nested model that has none, what the model says of itself."""
        if "description" in node:
            return node["description"]
        if "const" in node:
            return "tells this kind from the others"
        if "$ref" not in node:
            return ""
        first = self.models[_name(node)]["description"].partition("\n\n")[0].removesuffix(".")
        return first[0].lower() + first[1:]

    def _type(self, node: Node) -> str:
        """Say in words what a field holds, with its bounds; models as links to their sections."""
        if "const" in node:
            return f"`{node['const']}`"
        if "enum" in node:
            return ", ".join(f"`{value}`" for value in node["enum"])
        if "$ref" in node:
            return self._link(_name(node), "fields")
        if "oneOf" in node:
            return "one of " + ", ".join(
                self._link(_name(option), self._kind(_name(option))) for option in node["oneOf"]
            )
        if "anyOf" in node:
            return " or ".join(self._type(option) for option in node["anyOf"] if option != {"type": "null"})
        if node["type"] == "array":
            return self._array(node)
        if node["type"] == "object":
            keys = node.get("propertyNames", {}).get("enum", [])
            key = ", ".join(f"`{name}`" for name in keys) or "name"
            return f"mapping of {key} to {self._type(node['additionalProperties'])}"
        bounds = ", ".join(f"{sign} {_plain(node[bound])}" for bound, sign in BOUNDS.items() if bound in node)
        return f"{node['type']} {bounds}".strip()

    def _array(self, node: Node) -> str:
        if "prefixItems" in node:
            return f"[{', '.join(self._type(item) for item in node['prefixItems'])}]"
        least = f" ({node['minItems']} or more)" if "minItems" in node else ""
        return f"list of {self._type(node['items'])}{least}"

    def _link(self, name: str, text: str | None) -> str:
        return f"[{text}](#{anchor(self.titles[name])})"

    def _default(self, node: Node) -> str:
        """Return a default as in YAML; of a nested model only what differs from the model's own defaults."""
        default = node.get("default")
        if "$ref" in node and isinstance(default, dict):
            fields = self.models[_name(node)]["properties"]
            differing = {key: value for key, value in default.items() if value != fields[key].get("default", value)}
            return ", ".join(f"`{key}: {_plain(value)}`" for key, value in differing.items())
        return "*none*" if default is None else f"`{_plain(default)}`"


def page() -> str:
    """Return the whole page."""
    experiment = Reference(Experiment.model_json_schema(), "experiment")
    codec = Reference(CodecExperiment.model_json_schema(), "train-codec", "train-codec: ")
    return f"{INTRODUCTION}\n{experiment}\n{codec}"


def anchor(title: str) -> str:
    """Return the anchor that MkDocs and GitHub give a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-")


def _models_in(node: Node) -> Iterator[str]:
    """Yield the names of the models that a field holds, in the order of the schema."""
    if "$ref" in node:
        yield _name(node)
    for option in node.get("oneOf", []):
        yield _name(option)
    for option in node.get("anyOf", []):
        yield from _models_in(option)
    if isinstance(node.get("additionalProperties"), dict):
        yield from _models_in(node["additionalProperties"])


def _name(node: Node) -> str:
    return node["$ref"].rpartition("/")[2]


def _section(title: str, description: str, table: str) -> str:
    return f"## {title}\n\n{_text(description)}\n\n{table}\n"


def _text(text: str) -> str:
    """Join the lines of a docstring, and keep `<` from being read as HTML outside code."""
    parts = CODE.split(" ".join(text.split()))
    return "".join(part if CODE.fullmatch(part) else html.escape(part, quote=False) for part in parts)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
