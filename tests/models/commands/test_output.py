"""Files that a command is to write are refused before its work, or are its own until it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from models.commands.output import OF_RUN, reserved, write_data
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


def test_nothing_is_written_into_a_bundle_or_over_what_a_run_keeps(tmp_path: Path) -> None:
    run, link, archive = tmp_path / "runs" / "demo", tmp_path / "link", tmp_path / "bundle.zip"
    bundle = run / "exported"
    bundle.mkdir(parents=True)
    (bundle / "bundle.json").write_text("{}")
    (run / "experiment.yaml").write_text("experiment:\n  name: demo\n")
    link.symlink_to(bundle)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("bundle.json", "{}")
    parts = [run / pattern.replace("*", "metrics.json") for pattern in OF_RUN]
    for path, found in [
        (bundle / "bundle.json", "is in the bundle"),
        (bundle / "new" / "a.csv", "is in the bundle"),
        (link / "a.csv", "is in the bundle"),
        (archive, "is an archive"),
        *((part, "is a part of the run") for part in parts),
    ]:
        with pytest.raises(InputError, match=f"--csv .*{found}.*; name another file"), reserved({"--csv": path}):
            pytest.fail("it was not refused")
    assert not (bundle / "new").exists()
    for path in (run / "systems.csv", run / "report" / "systems.svg", run.parent / "ensemble" / "a.csv"):
        for _ in range(2):  # what the command itself has written is replaced
            with reserved({"--csv": path}):
                write_data(path, ["a"])


def test_the_folder_of_an_experiment_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("name: mine\n")
    with reserved({"--output": tmp_path / "features" / "a.parquet"}):
        pass


@pytest.mark.parametrize("printed", ["print_data('a')", "write_csv(pandas.DataFrame({'a': [1]}), STDOUT)", "show('a')"])
def test_an_error_of_standard_output_names_it(printed: str) -> None:
    code = f"import pandas; from models.commands.output import *; from models.console import show; {printed}"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert "No space left on device: 'standard output'" in done.stderr


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
