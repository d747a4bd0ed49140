"""The results of a long job are kept in a file that an interrupted run goes on from."""

import os
from pathlib import Path

import pytest

from models.commands.journal import Journal


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with (
        pytest.raises(OSError, match=rf"No space left on device: '{journal.path}'"),
        Path("/dev/full").open("ab") as full,
    ):
        journal._file = full
        try:
            journal.add("key", 1)
        finally:
            os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # where what is left can be written
