"""Files and directories are replaced whole or not at all."""

import errno
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from models.files import atomic_directory, atomic_write, copy_directory, write_frame, write_json


class Stopped(BaseException):
    """Stands for Ctrl+C, which is no Exception."""


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic_write(path) as partial:
        partial.write_text("old")
        assert not path.exists()
    with atomic_write(path) as partial:
        partial.write_text("ne")
        assert path.read_text() == "old"
        assert str(os.getpid()) in partial.name, "two processes do not write into each other's file"
        partial.write_text("new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_new_file_is_on_the_disk_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "file", list[bytes]()
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.pread(file, 9, 0)))
    write_json(path, "old")
    assert (synced, path.read_bytes()) == ([b'"old"\n'], b'"old"\n')


@pytest.mark.parametrize("error", [OSError, Stopped])
@pytest.mark.parametrize("written", ["", "ne"])
def test_after_an_error_the_old_file_is_all_there_is(tmp_path: Path, error: type[BaseException], written: str) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as partial:
            if written:
                partial.write_text(written)
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        write_json(Path("/dev/full"), {"a": 1})
    full = tmp_path / "full.json"
    with pytest.raises(OSError, match=rf"No space left on device: '{full}'"), atomic_write(full):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as writing to `partial` does


def fill_up(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_in_a_directory_the_file_is_named_as_it_would_be_there(tmp_path: Path) -> None:
    """Not as in the directory that is written until it is whole, and then removed."""
    (tmp_path / "source" / "inner").mkdir(parents=True)
    (tmp_path / "source" / "inner" / "a").write_text("whole")
    (tmp_path / "source" / "b").write_text("whole")
    made = tmp_path / "made"
    with (
        pytest.raises(OSError, match=rf"No space left on device: '{made / 'members' / 'inner' / 'a'}'"),
        atomic_directory(made) as partial,
    ):
        copy_directory(tmp_path / "source", partial / "members", shutil.ignore_patterns("b"), fill_up)
    with atomic_directory(made) as partial:
        copy_directory(tmp_path / "source", partial, shutil.ignore_patterns("b"))
        copy_directory(tmp_path / "source", partial, shutil.ignore_patterns("b"))  # over what is there
    assert [str(path.relative_to(made)) for path in sorted(made.rglob("*"))] == ["inner", "inner/a"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "record.json", {"old": True})
    write_frame(tmp_path / "table.parquet", pd.DataFrame({"old": [True]}))
    with pytest.raises(TypeError):
        write_json(tmp_path / "record.json", {"new": object()})
    with pytest.raises(Exception, match="object"):
        write_frame(tmp_path / "table.parquet", pd.DataFrame({"new": [object()]}))
    assert (tmp_path / "record.json").read_text() == '{\n  "old": true\n}\n'
    assert list(pd.read_parquet(tmp_path / "table.parquet")) == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["record.json", "table.parquet"]


def test_readers_see_the_old_directory_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bundle"
    with atomic_directory(path) as partial:
        (partial / "a").write_text("old")
        assert not path.exists()
    killed = path.with_name(partial.name)  # a process with this id was killed here before
    killed.mkdir()
    (killed / "b").write_text("of the killed one")
    with atomic_directory(path) as partial:
        assert partial.parent == path.parent, "a rename stays within a file system"
        assert str(os.getpid()) in partial.name
        (partial / "c").write_text("new")
        assert [file.name for file in path.iterdir()] == ["a"]
    assert [file.name for file in path.iterdir()] == ["c"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, Stopped])
def test_after_an_error_the_old_directory_is_all_there_is(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "a").write_text("old")

    def fail() -> None:
        with atomic_directory(path) as partial:
            (partial / "a").write_text("ne")
            raise error

    with pytest.raises(error):
        fail()
    # the new directory goes, so that it cannot take the old one's place
    with pytest.raises(FileNotFoundError), atomic_directory(path) as partial:
        shutil.rmtree(partial)
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
