"""The command line itself: help with examples, completion, and errors of the user, all told without loading torch."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer

import ray_jobs.cli
from models.commands import cli, running

from ...small_bundle import write_bundle, write_sounds

WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(["faiss", "torch", "transformers"]))  # importing them fails
sys.argv[0] = "enclap"
from models.commands.cli import main
main()
"""


def enclap(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("app", [cli.app, ray_jobs.cli.app], ids=["library", "trainer"])
def test_every_command_has_an_example(app: typer.Typer) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert "caption" in commands
    for name, command in commands.items():
        assert f"Example: [bold]enclap {name} " in command.help.replace("enclap doctor[/bold]", "enclap doctor "), name


def test_help_and_completion() -> None:
    assert "embed" in enclap("--help").stdout
    assert (
        "enclap caption runs/demo/bundle concert.flac --window 10" in enclap("caption", "--help", COLUMNS="200").stdout
    )
    for shell, begins in (("bash", "_enclap_completion()"), ("zsh", "#compdef enclap")):
        shown = enclap("--show-completion", shell)
        assert shown.stdout.startswith(begins), shown.stderr
    words = {"COMP_WORDS": "enclap ca", "COMP_CWORD": "1"}
    assert enclap(_ENCLAP_COMPLETE="complete_bash", **words).stdout.split() == ["caption"]
    found = enclap(_ENCLAP_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="enclap caption --format v")
    assert "vtt" in found.stdout
    assert "csv" not in found.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("exported") / "bundle")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (written,) = write_sounds(tmp_path_factory.mktemp("sounds"), 1)
    return written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("caption NOWHERE SOUND", "bundle.json: no such file"),
        ("caption BUNDLE gone.wav", "gone.wav: no such file or directory"),
        ("caption BUNDLE SOUND --output SOUND", "is one of the files to read"),
        ("caption BUNDLE SOUND --output a.csv --submission a.csv", "is the file of --output, too"),
        ("caption BUNDLE SOUND --window 1 --hop 2", "--hop: found 2.0"),
        ("caption BUNDLE SOUND --format srt", "--format srt: found no --window"),
        ("caption BUNDLE SOUND --seed -1", "equal to 0"),
        ("caption BUNDLE SOUND --dtype int4", "int4"),
        ("caption BUNDLE SOUND --dtype bf16 --int8", "int8: found together with dtype 'bf16'"),
        (f"caption BUNDLE {'a' * 300}.wav", "File name too long; expected a path"),
        ("serve-local NOWHERE", "bundle.json: no such file"),
        ("embed BUNDLE gone.wav --output a.parquet", "gone.wav: no such file or directory"),
        ("embed BUNDLE SOUND", "--output"),
        ("index BUNDLE gone.wav", "gone.wav: no such file or directory"),
        ("index NOWHERE SOUND", "bundle.json: no such file"),
        ("retrieve BUNDLE rain gone.wav", "gone.wav: no such file or directory"),
        ("retrieve BUNDLE rain", "no files are indexed"),
        ("retrieve BUNDLE SOUND --queries gone.csv", "gone.csv: no such file"),
        ("retrieve BUNDLE rain SOUND --submission a.csv", "--submission: found no --queries"),
        ("caption SOUND BUNDLE", "is it given in the place of another argument?"),
        ("verify NOWHERE.zip", "NOWHERE.zip: no such file or directory"),
        ("caption BUNDLE SOUND --output /proc/a.jsonl", "/proc/a.jsonl: cannot be written"),
        ("similar BUNDLE gone.wav SOUND", "gone.wav: no such file or directory"),
        ("similar BUNDLE SOUND SOUND --window 9", "--window: found 9.0"),
    ],
)
def test_errors_are_told_before_torch_is_loaded(
    bundle: Path, sound: Path, tmp_path: Path, arguments: str, message: str
) -> None:
    places = {"BUNDLE": bundle, "SOUND": sound, "NOWHERE": tmp_path / "nowhere"}
    done = enclap(*(places.get(word, word) for word in arguments.split()))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.replace("\n", " ")
    assert not [*tmp_path.iterdir()]
    assert "torch" not in done.stderr


CLOSED = 'exec {python} -c "$0" "$@" <&- >&- '  # as daemons and cron do


@pytest.mark.parametrize("also", ["", "2>&-"], ids=["input and output", "all three"])
@pytest.mark.parametrize(
    "arguments", ["caption BUNDLE SOUND", "retrieve BUNDLE rain SOUND", "similar BUNDLE SOUND SOUND"]
)
def test_results_for_a_closed_standard_output_are_refused_before_work(
    arguments: str, also: str, bundle: Path, sound: Path
) -> None:
    words = [str({"BUNDLE": bundle, "SOUND": sound}.get(word, word)) for word in arguments.split()]
    shell = CLOSED.format(python=sys.executable) + also
    done = subprocess.run(["sh", "-c", shell, WITHOUT_TORCH, *words], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert also or "error: standard output: found it closed" in done.stderr


def test_a_closed_standard_output_is_nothing_to_a_command_that_writes_a_file(
    bundle: Path, sound: Path, tmp_path: Path
) -> None:
    library = "import sys; sys.argv[0] = 'enclap'; from models.commands.cli import main; main()"
    command = ["caption", str(bundle), str(sound), "--output", str(tmp_path / "a.jsonl")]
    shell = CLOSED.format(python=sys.executable) + "2>&-"
    subprocess.run(["sh", "-c", shell, library, *command], check=True)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "files", "code", "told"),
    [
        (errno.ENOSPC, ("a.csv",), 1, "a.csv: No space left on device; * free at FOLDER; make room, the same command"),
        (errno.ENOSPC, ("b.csv", None, "new/a.csv"), 1, "a.csv: No space left on device; * free at FOLDER; make"),
        (errno.EROFS, ("a.csv",), 2, "a.csv: Read-only file system; make it writable, or name another place"),
        (errno.EISDIR, ("a.csv",), 2, "a.csv: Is a directory; expected a file"),
    ],
)
def test_what_the_system_says_is_told_with_the_file(
    number: int, files: tuple[str | None, ...], code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()

    @app.command()
    def fails() -> None:
        raise OSError(number, os.strerror(number), *(name and str(tmp_path / name) for name in files))

    with pytest.raises(SystemExit, match=str(code)):
        running.run_app(app, [])
    said = capsys.readouterr().err
    assert fnmatch(said.splitlines()[0], f"error: {tmp_path}/*{told.replace('FOLDER', str(tmp_path))}*"), said


@pytest.mark.parametrize(("arguments", "told"), [(["caption", "bundle", ""], "after bundle"), ([""], "an argument is")])
def test_an_argument_that_is_empty_is_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As that of a variable which is not set: in the place of a path it would be the working directory."""
    with pytest.raises(SystemExit, match="2"):
        running.run_app(cli.app, arguments)
    assert told in (said := capsys.readouterr().err)
    assert "empty; is a variable not set?" in said
