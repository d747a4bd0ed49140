"""Where the real caption files are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real caption files, which are not the project's to ship; without it, what needs it is skipped."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("ENCLAP_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real caption files: ENCLAP_SHARED_DATA is not set, and {beside} does not exist")
    return folder
