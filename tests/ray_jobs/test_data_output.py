"""What commands print for programs to read: on standard output, byte for byte."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from models.commands import caption, retrieve
from models.commands.options import Searching
from models.commands.output import print_data
from models.ensemble.bundle import Ensemble
from models.submission import one_line
from ray_jobs import cli, evaluate, fluency

ODD_NAMES = [b"take:x:1.flac", b"[bold]a\tb.flac", b":dog: " + b"very " * 30 + b"long.flac", "café.flac".encode()]


@pytest.fixture
def oddly_named(smoke_run: Path, tmp_path: Path) -> list[Path]:
    """Clips whose names a terminal library would change: markup, emoji codes, tabs, long lines."""
    clips = sorted((smoke_run.parent / "audio" / "test").glob("*.flac"))
    paths = [tmp_path / os.fsdecode(name) for name in ODD_NAMES]
    for clip, path in zip(clips, paths, strict=False):
        shutil.copy(clip, path)
    return paths


def one_cell(path: Path | str) -> str:
    """A name as it stands where tabs separate."""
    return str(path).replace("\t", "\\t")


def test_captions_and_their_paths(
    smoke_run: Path,
    oddly_named: list[Path],
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    unreadable = oddly_named[0].with_name("unreadable.wav")
    unreadable.write_bytes(b"RIFF nothing")
    one_by_one = caption.Options(batch_size=1)  # shows a progress bar
    caption.run(smoke_run / "bundle", [*oddly_named, unreadable], None, None, None, one_by_one)
    printed, said = capfdbinary.readouterr()
    assert f"left out: {unreadable}".encode() in said
    texts = [one_line(one.text) for one in Ensemble.load(smoke_run / "bundle").caption(oddly_named)]
    assert printed == b"".join(
        os.fsencode(one_cell(path)) + b"\t" + text.encode() + b"\n"
        for path, text in zip(oddly_named, texts, strict=True)
    )


def test_retrieved_paths(smoke_run: Path, oddly_named: list[Path], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    retrieve.run(smoke_run / "bundle", "rain", Searching(oddly_named, top_k=9))
    ensemble = Ensemble.load(smoke_run / "bundle")
    ensemble.index(oddly_named)
    assert capfdbinary.readouterr().out == b"".join(
        f"{rank:3d}  {match.similarity:8.3f}  ".encode() + os.fsencode(one_cell(match.path)) + b"\n"
        for rank, match in enumerate(ensemble.retrieve("rain"), 1)
    )


def test_values_of_a_corpus(smoke_run: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output = tmp_path / "values.json"
    evaluate.run(smoke_run / "bundle", smoke_run.parent / "audio", "test", output)
    printed = capfdbinary.readouterr().out.decode()
    assert "captioning\n  bleu_1 " in printed
    for name in ("retrieval", "retrieval audio to text"):
        assert f"\n{name}\n  map@10       0." in printed


def test_a_table_of_fluency(smoke_run: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    table = tmp_path / "[bold]captions:x:.csv"
    table.write_text("file_name,caption_1\na.wav,a dog barks and rain falls\n")
    fluency.run(smoke_run / "bundle", [table])
    printed = capfdbinary.readouterr().out.decode()
    assert f"\n{table}: " in printed
    assert "\n  repeat word                  1" in printed


def test_bytes_of_names_that_are_not_unicode(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_data(os.fsdecode(b"caf\xe9.flac") + "\ta dog")
    assert capfdbinary.readouterr().out == b"caf\xe9.flac\ta dog\n"


@pytest.mark.parametrize(("query", "said"), [("", "nowhere is empty"), (" \t", "the query is blank")])
def test_blank_queries_are_refused_before_any_work(query: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["retrieve", "nowhere", query])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_an_empty_index_is_an_error_of_the_user(
    smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(smoke_run / "bundle", bundle, ignore=shutil.ignore_patterns("index"))
    with pytest.raises(SystemExit) as end:
        cli.main(["retrieve", str(bundle), "rain"])
    assert end.value.code == 2
    assert f"add some with `enclap index {bundle}`" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(typer.main.get_command(cli.app).commands))  # type: ignore[attr-defined]
def test_every_command_is_a_module(command: str) -> None:
    """`python -m ray_jobs.<command>` is the same as `enclap <command>`."""
    spec = find_spec(f"ray_jobs.{command.replace('-', '_')}")
    assert spec
    assert spec.origin
    assert f'run_command("{command}")' in Path(spec.origin).read_text()
