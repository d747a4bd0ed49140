"""Imports run one way: which room may import which, and no circle of files, late imports inside functions counted."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp
import pytest

ROOMS = ("corpora", "models", "ray_jobs", "tune_spaces")
FORBIDDEN = [
    ("models", "ray"),
    ("models", "ray_jobs"),
    ("models", "corpora"),
    ("models", "tune_spaces"),
    ("corpora", "ray"),
    ("corpora", "ray_jobs"),
    ("tune_spaces", "models"),
    ("tune_spaces", "corpora"),
    ("tune_spaces", "ray_jobs"),
]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """The imports of all files, read from their syntax trees."""
    return grimp.build_graph(*ROOMS, include_external_packages=True, cache_dir=None)


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize(("importer", "imported"), FORBIDDEN)
def test_rooms_do_not_import_what_they_must_not_know(graph: grimp.ImportGraph, importer: str, imported: str) -> None:
    found = [
        f"{module} imports {other}"
        for module in graph.modules
        if _inside(module, importer)
        for other in graph.find_modules_directly_imported_by(module)
        if _inside(other, imported)
    ]
    assert not found


def test_search_spaces_know_ray_tune_alone(graph: grimp.ImportGraph) -> None:
    known = {
        other
        for module in graph.modules
        if _inside(module, "tune_spaces")
        for other in graph.find_modules_directly_imported_by(module)
    }
    assert known <= {"ray", "__future__", "typing", "collections"}


def test_no_file_imports_itself_in_a_circle(graph: grimp.ImportGraph) -> None:
    own = [module for module in graph.modules if module.split(".")[0] in ROOMS]
    files = {module: graph.find_modules_directly_imported_by(module) & set(own) for module in own}
    TopologicalSorter(files).prepare()  # raises CycleError, which names the circle


def test_models_can_be_shipped_under_another_name(graph: grimp.ImportGraph) -> None:
    """Every import of a file of models/ from another is relative."""
    absolute = [
        f"{module}:{detail['line_number']}: {detail['line_contents']}"
        for module in graph.modules
        if _inside(module, "models")
        for other in graph.find_modules_directly_imported_by(module)
        if _inside(other, "models")
        for detail in graph.get_import_details(importer=module, imported=other)
        if not detail["line_contents"].startswith(("from .", "import ."))
    ]
    assert not absolute
