"""Imports run one way: which room may import which, and no circle of modules.

Counted are the imports of every `.py` and `.pyi` file (a lazy package's imports are in its stub), also those inside
functions and under TYPE_CHECKING, and modules named by a string where they are loaded. A module whose name is
computed, as those of codecs, training tasks and commands are, is counted as far as the name is written there.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What the files of a room may import of the house and of Ray. The scripts of benchmarks/ import each other by their
# bare names, as Python finds them.
MAY_IMPORT = {
    "corpora": {"corpora", "models.audio", "models.csv_files", "models.errors", "models.files", "models.text"},
    "models": {"models"},
    "tune_spaces": {"tune_spaces", "ray.tune"},
    "ray_jobs": {"ray_jobs", "corpora", "models", "tune_spaces", "ray"},
}
ROOMS = (*MAY_IMPORT, "benchmarks", "docs", "tests")
SCRIPTS = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
HOUSE = {*ROOMS, *SCRIPTS, "ray"}
LOADERS = ("import_module", "__import__", "resolve_name", "lazy_loader.load")


@dataclass(frozen=True)
class Import:
    """A line of a file, and the full name of what it imports, such as `models.codec.Codec`."""

    where: str
    name: str
    relative: bool

    def __str__(self) -> str:
        return f"{self.where} imports {self.name}"


def module_name(path: Path) -> str:
    """Return the name by which a file of the house is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[parts[0] == "benchmarks" : len(parts) - (parts[-1] == "__init__")])


def imports(source: str, package: str, where: str = "") -> Iterator[Import]:
    """Yield all imports of a file of a package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found, relative = [alias.name for alias in node.names], False
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            found, relative = [f"{base}.{alias.name}" for alias in node.names], node.level > 0
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(LOADERS) and node.args:
            written = _written(node.args[0])
            found, relative = [resolve_name(written, package)] if written else [], written.startswith(".")
        else:
            continue
        for name in found:
            yield Import(f"{where}:{node.lineno}", name, relative)


def _written(name: ast.expr) -> str:
    """Return the module that an expression names, or of an f-string the packages before what is computed."""
    if isinstance(name, ast.JoinedStr):
        return _written(name.values[0]).rpartition(".")[0]
    return name.value.partition(":")[0] if isinstance(name, ast.Constant) and isinstance(name.value, str) else ""


def hidden_imports(source: str) -> list[str]:
    """Return the lines of a file that could import what `imports` does not see: loaders renamed, and code in texts."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", "") or "", *(alias.name for alias in node.names)]
            renamed = any(alias.asname not in (None, alias.name) for alias in node.names)
            hidden = "runpy" in names or (renamed and bool({"importlib", "import_module", "resolve_name"} & {*names}))
        else:
            hidden = isinstance(node, ast.Call) and ast.unparse(node.func) in ("exec", "eval")
        if hidden:
            found.append(ast.unparse(node).splitlines()[0])
    return found


@pytest.fixture(scope="module")
def house() -> dict[str, list[Import]]:
    """All modules with what they import; that of a lazy package is its `__init__.py` and its stub together."""
    found = defaultdict[str, list[Import]](list)
    for path in (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py*")) if path.suffix != ".pyc"):
        module = module_name(path)
        package = module if path.stem == "__init__" else module.rpartition(".")[0]
        found[module] += imports(path.read_text(encoding="utf-8"), package, str(path.relative_to(ROOT)))
    return dict(found)


def within(name: str, packages: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def of_room(house: dict[str, list[Import]], room: str) -> list[Import]:
    return [one for module, found in house.items() if within(module, {room}) for one in found]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("import ray.train", "ray.train"),
        ("from ray import train", "ray.train"),
        ("from . import codec", "models.codec"),
        ("def late():\n    import ray", "ray"),
        ("if TYPE_CHECKING:\n    import ray", "ray"),
        ("importlib.import_module('ray.train')", "ray.train"),
        ("import_module('.codec', __package__)", "models.codec"),
        ("import_module(f'ray_jobs.tuning.{name}')", "ray_jobs.tuning"),
        ("resolve_name('ray_jobs.train:run')", "ray_jobs.train"),
        ("lazy_loader.load('ray')", "ray"),
    ],
)
def test_every_way_to_import_is_seen(line: str, name: str) -> None:
    assert name in [one.name for one in imports(line, "models")]


@pytest.mark.parametrize(
    "line",
    [
        "from importlib import import_module as load",
        "import importlib as loader",
        "import runpy",
        "exec('import ray')",
        "eval('__import__(name)')",
        "from runpy import run_path",
    ],
)
def test_ways_to_import_past_these_tests_are_found(line: str) -> None:
    assert hidden_imports(line)


def test_no_file_imports_past_these_tests() -> None:
    rooms = (*MAY_IMPORT, "benchmarks", "docs")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    found = [f"{path.relative_to(ROOT)}: {line}" for path in files for line in hidden_imports(path.read_text("utf-8"))]
    assert not found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_they_may_know(house: dict[str, list[Import]], room: str) -> None:
    known = of_room(house, room)
    assert known
    assert not [str(one) for one in known if one.name.split(".")[0] in HOUSE and not within(one.name, MAY_IMPORT[room])]


def test_search_spaces_know_ray_tune_alone(house: dict[str, list[Import]]) -> None:
    known = MAY_IMPORT["tune_spaces"] | sys.stdlib_module_names
    assert not [str(one) for one in of_room(house, "tune_spaces") if not within(one.name, known)]


def test_no_module_imports_itself_in_a_circle(house: dict[str, list[Import]]) -> None:
    def module_of(name: str) -> str:
        """Return the module that a name is in, or nothing for what is not the house's."""
        while name and name not in house:
            name = name.rpartition(".")[0]
        return name

    graph = {module: {module_of(one.name) for one in found} - {""} for module, found in house.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_a_run_does_not_know_the_results_that_are_kept_in_it(house: dict[str, list[Import]]) -> None:
    """ray_jobs.results reads and writes by ray_jobs.run; the two would otherwise import each other."""
    assert not [str(one) for one in of_room(house, "ray_jobs.run") if within(one.name, {"ray_jobs.results"})]


def test_models_can_be_shipped_under_another_name(house: dict[str, list[Import]]) -> None:
    """Every import of a file of models/ from another is relative."""
    assert not [str(one) for one in of_room(house, "models") if within(one.name, {"models"}) and not one.relative]


@pytest.mark.parametrize(
    ("imported", "not_loaded"),
    [("ray", "rfc3987_syntax"), ("models.encoders.audio", "wandb")],
    ids=["every process of Ray", "every process with a retriever"],
)
def test_what_takes_seconds_to_import_and_is_not_used_is_left_alone(imported: str, not_loaded: str) -> None:
    code = f"import sys, {imported}; sys.exit({not_loaded!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=False).returncode == 0


def test_what_was_left_out_of_an_import_can_be_imported_later() -> None:
    code = "import models.encoders.audio, wandb; wandb.init"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=False).returncode == 0
