"""What tests of ablations share."""

import pytest

from .small_ablation import Jobs


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    return Jobs(monkeypatch)
