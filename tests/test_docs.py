"""What README and docs/ name exists: links, paths, commands, options, fields; and the site builds without a warning."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ray_jobs.ablation.arms import Arms, load_ablation
from ray_jobs.cli import app
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.layers import EXTENDS
from ray_jobs.experiment.loading import load_config, load_experiment
from ray_jobs.train_codec import CodecExperiment

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
MOST_WORDS = 1200  # of the README
ROOMS = "benchmarks|corpora|deploy|docs|experiments|models|ray_jobs|tests|tune_spaces"
PATH = re.compile(rf"(?<![\w/.-])(?:{ROOMS})/[\w./-]*\w(?![\w*<])")
COMMAND = re.compile(r"(?:(?<!from )\benclap |-m ray_jobs\.)([a-z][a-z-]*)\b([^\n#|]*)")
NAMED = ("corpora", "members", "token_ensembles", "custom", "sizes", "arms")  # mappings whose keys a user chooses

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@cache
def tokens(page: Path) -> list[Token]:
    """Return all tokens of a page, those inside paragraphs, headings and cells among them."""
    blocks = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    return [token for block in blocks for token in (block, *(block.children or []))]


def code(page: Path) -> list[str]:
    """Return what is set as code, inline or in blocks, continued lines joined."""
    found = [token.content for token in tokens(page) if token.type in ("code_inline", "fence")]
    return [re.sub(r"\\\n\s*", "", text) for text in found]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    all_tokens = tokens(page)
    headings = [after for before, after in pairwise(all_tokens) if before.type == "heading_open"]
    titles = ["".join(child.content for child in heading.children or []) for heading in headings]
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield name and arguments of each command of the project that a page mentions."""
    for text in code(page):
        for name, arguments in COMMAND.findall(text):
            try:
                yield name.replace("_", "-"), shlex.split(arguments)
            except ValueError:  # a quote that closes after the command: it is part of a longer line
                yield name.replace("_", "-"), arguments.split()


# --- the pages -----------------------------------------------------------------------------------------------------


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    links = [str(token.attrs.get("href") or token.attrs.get("src") or "") for token in tokens(page)]
    broken = []
    for link in filter(None, links):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@each_page
def test_named_paths_exist(page: Path) -> None:
    named = {path for text in code(page) for path in PATH.findall(text)}
    assert not [path for path in named if not (ROOT / path).exists()]


def test_paths_are_looked_for() -> None:
    found = PATH.findall(
        "models/codec/base.py experiments/*.yaml runs/demo/models/x.py corpora/<kind>.py tests/nope.py"
    )
    assert found == ["models/codec/base.py", "tests/nope.py"]


def test_tests_that_prove_a_promise_are_there() -> None:
    """`tests/x.py::test_y` in docs/reliability.md is a test, marked slow if and only if the page says so."""
    cited = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`(,| \|| \(slow\))", (ROOT / "docs" / "reliability.md").read_text())
    assert len(cited) > 20
    for file, name, after in cited:
        source = (ROOT / file).read_text()
        assert (found := re.search(rf"((?:^@.*\n(?:[ )].*\n)*)*)(?:async )?def {name}\(", source, re.MULTILINE)), name
        assert ("mark.slow" in found[1] or "pytestmark = pytest.mark.slow" in source) == ("slow" in after), name


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    # It has to work without a network: no page loads a script, a style or a font from elsewhere.
    loads = re.compile(r"<(?:script|img)[^>]*src=\"?https?:|<link[^>]*rel=\"?stylesheet\"?[^>]*href=\"?https?:")
    assert not [page for page in (tmp_path / "site").rglob("*.html") if loads.search(page.read_text(encoding="utf-8"))]


# --- commands ------------------------------------------------------------------------------------------------------


def cli() -> dict[str, Any]:
    """Return the commands of `enclap` by name."""
    group: Any = typer.main.get_command(app)  # of the click that typer carries, which has no types of its own
    return group.commands


@each_page
def test_commands_and_options_exist(page: Path) -> None:
    known = cli()
    for name, arguments in commands(page):
        assert name in known, f"no command {name}"
        options = {one for option in known[name].params for one in (*option.opts, *option.secondary_opts)} | {"--help"}
        given = {
            argument.strip("[]").partition("=")[0] for argument in arguments if argument.strip("[").startswith("--")
        }
        assert given <= options, f"{name}: {given - options}"


def test_all_commands_are_documented() -> None:
    assert set(cli()) == {name for name, _ in commands(ROOT / "docs" / "commands.md")}


@each_page
def test_overrides_are_valid(page: Path) -> None:
    """Every `key=value` after a shipped experiment fits its schema."""
    for name, arguments in commands(page):
        if not arguments or not (ROOT / arguments[0]).is_file():
            continue
        overrides = [argument for argument in arguments[1:] if re.match(r"[\w.-]+=", argument)]
        if name == "train-codec":
            load_config(ROOT / arguments[0], overrides, CodecExperiment)
        elif name == "ablate":
            load_ablation(ROOT / arguments[0], overrides)
        else:
            load_experiment(ROOT / arguments[0], overrides)


# --- fields --------------------------------------------------------------------------------------------------------


@each_page
def test_fields_of_yaml_blocks_exist(page: Path) -> None:
    known = schema_keys(Experiment.model_json_schema()) | schema_keys(Arms.model_json_schema()) | {EXTENDS}
    blocks = [token.content for token in tokens(page) if token.type == "fence" and token.info == "yaml"]
    used = {key for block in blocks for key in fields(yaml.safe_load(block.replace(", ...}", "}")))}
    assert used <= known


def schema_keys(node: Any) -> set[str]:
    """Return the names of all fields in a JSON schema."""
    if isinstance(node, list):
        return set().union(*map(schema_keys, node))
    if not isinstance(node, dict):
        return set()
    return set(node.get("properties", {})).union(*map(schema_keys, node.values()))


def fields(node: Any, chosen: bool = False) -> Iterator[str]:
    """Yield the keys of a YAML document that are fields, not names: a member's name has a mapping with `kind`."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if not chosen and not (isinstance(value, dict) and "kind" in value):
            yield key
        yield from fields(value, key in NAMED)


def test_config_page_is_the_schemas() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate_config.py"))["page"]()
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == page, "run python docs/generate_config.py"


def test_every_field_says_what_it_means() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page.count("\n| `") > 150
    assert not [line for line in page.splitlines() if line.endswith("|  |")]
