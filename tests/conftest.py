"""The folder of real caption files, for all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real caption files, which the project may not ship; skip the tests that need it without."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ENCLAP_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real caption files: ENCLAP_SHARED_DATA is not set, and {beside} does not exist")
    return folder
