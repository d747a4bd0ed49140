"""Files that a command is to write are refused before its work, or are its own until it ends."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from models.commands.output import reserved, write_data
from models.errors import InputError


def test_a_file_is_kept_for_one_process_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "new" / "captions.jsonl"
    with reserved({"--output": path, "--submission": None}):
        refused = pytest.raises(InputError, match=r"--csv .*captions\.jsonl: another process is writing it; wait for")
        with refused, reserved({"--csv": path}):
            pytest.fail("it was not refused")
        write_data(path, ["a", os.fsdecode(b"caf\xe9")])
    assert path.read_bytes() == b"a\ncaf\xe9\n"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt), reserved({"--output": path}):
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == [path]


def test_a_lock_that_a_killed_process_left_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".a.csv.lock").touch()
    with reserved({"--csv": tmp_path / "a.csv"}):
        assert FileLock(tmp_path / ".a.csv.lock").lock_file


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    sound, link = tmp_path / "a.wav", tmp_path / "link.wav"
    sound.touch()
    link.symlink_to(sound)
    for outputs, message in [
        ({"--output": tmp_path}, rf"--output {tmp_path}: is a directory, expected a file"),
        ({"--output": sound / "b.csv"}, r"--output .*a\.wav/b\.csv: cannot be written \("),
        ({"--output": link}, r"--output .*link\.wav: is one of the files to read; name another file"),
        ({"--output": tmp_path / "b", "--submission": tmp_path / "x" / ".." / "b"}, "is the file of --output, too"),
    ]:
        with pytest.raises(InputError, match=message), reserved(outputs, [sound]):
            pytest.fail("it was not refused")
    assert not sound.read_bytes()


def test_devices_and_links_stay_what_they_are(tmp_path: Path) -> None:
    null = Path(os.devnull)
    with reserved({"--output": null, "--submission": null}):
        write_data(null, ["a"])
    assert null.is_char_device()
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_data(pipe, ["a", "b"])
    reader.join()
    assert read == [b"a\nb\n"]
    link.symlink_to(target)
    write_data(link, ["c"])
    assert link.is_symlink()
    assert target.read_bytes() == b"c\n"
