"""The results of a long job are kept in a file that an interrupted run goes on from."""

from pathlib import Path
from typing import Any

import pytest

from models.commands.journal import Journal


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    journal: Any = Journal(tmp_path / "journal")
    full = pytest.raises(OSError, match=rf"No space left on device: '{journal.path}'")
    with Path("/dev/full").open("ab", buffering=0) as journal._file, full:
        journal.add("key", 1)
