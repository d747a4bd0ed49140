"""What all rooms share: the folder of real caption files, and how tests are dealt to processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what one process should run: the tests of a module, and all of those on the one cluster."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("cluster" if "cluster" in names else item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real caption files, which the project may not ship; skip the tests that need it without."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ENCLAP_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real caption files: ENCLAP_SHARED_DATA is not set, and {beside} does not exist")
    return folder
