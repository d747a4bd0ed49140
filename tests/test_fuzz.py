"""A minute of mutated files at every door: each is used, or refused by name. `tests/fuzz/run.py` does more of it."""

from __future__ import annotations

from itertools import count

import pytest

from tests.fuzz.door import Door
from tests.fuzz.doors import DOORS
from tests.fuzz.run import fuzz

SECONDS = 60 / len(DOORS)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_mutated_files_are_used_or_refused_by_name(door: type[Door]) -> None:
    ran, findings = fuzz(door, 0, count(), SECONDS)
    assert ran > 3
    assert not findings, "\n".join(map(str, findings))
