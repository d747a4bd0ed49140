"""`enclap caption` prints and writes what the ensemble says, and refuses what cannot be done before any work."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from models.commands import caption, retrieve
from models.commands.caption import Options, _is_caption, run
from models.commands.journal import Journal
from models.commands.loading import load_ensemble
from models.commands.options import Format, Loading
from models.ensemble import Ensemble
from models.errors import InputError
from models.submission import SubmissionError

from ...small_bundle import RATE, write_bundle, write_sounds

CPU = Loading("cpu")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("exported") / "bundle")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three sounds, the last one long."""
    paths = write_sounds(tmp_path_factory.mktemp("sounds"), 3)
    samples = np.concatenate([soundfile.read(path, dtype="int16")[0] for path in paths])
    soundfile.write(paths[2], samples, RATE)
    return paths


@pytest.fixture(scope="module")
def ensemble(exported: Path) -> Ensemble:
    return Ensemble.load(exported, device="cpu")


def test_lines_are_printed_where_no_one_reads_along(
    exported: Path, sounds: list[Path], ensemble: Ensemble, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    texts = [one.text for one in ensemble.caption(sounds)]
    run(exported, sounds, None, None, None, Options(batch_size=2, loading=CPU))
    lines = [f"{path}\t{text}\n" for path, text in zip(sounds, texts, strict=True)]
    assert capfdbinary.readouterr().out.decode() == "".join(lines)


def test_a_table_is_printed_in_a_terminal(
    exported: Path, sounds: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    run(exported, sounds, None, None, None, Options(window_s=1.0, loading=CPU))
    printed = capsys.readouterr().out
    assert "caption" in printed.splitlines()[1]
    assert printed.count("00:00:00.0") == 3, "every file has a window that begins there"
    assert "00:00:03.0" in printed


@pytest.mark.parametrize("wanted", [None, Format.CSV, Format.TSV])
def test_a_timeline_is_written(
    exported: Path, sounds: list[Path], ensemble: Ensemble, tmp_path: Path, wanted: Format | None
) -> None:
    output = tmp_path / "captions"
    options = Options(wanted, window_s=1.0, hop_s=0.5, batch_size=3, loading=CPU)
    run(exported, sounds, output, None, 5, options)
    expected = ensemble.caption(sounds, seed=5, window_s=1.0, hop_s=0.5)
    lines = output.read_text().splitlines()
    assert [*tmp_path.iterdir()] == [output]
    if wanted:
        assert len(lines) == sum(len(one.segments) for one in expected) + (wanted is Format.CSV)
        return
    found = [json.loads(line) for line in lines]
    assert [one["path"] for one in found] == [str(path) for path in sounds]
    for entry, one in zip(found, expected, strict=True):
        assert entry["duration_s"] == one.duration_s
        assert [(segment["start_s"], segment["end_s"], segment["text"]) for segment in entry["segments"]] == [
            (segment.start_s, segment.end_s, segment.caption.text) for segment in one.segments
        ]
        assert len(entry["segments"][0]["candidates"]) == len(one.segments[0].caption.candidates)


@pytest.mark.parametrize("kind", ["OGG", "FLAC", "MP3"])
def test_a_timeline_of_joined_files_ends_with_the_last(exported: Path, tmp_path: Path, kind: str) -> None:
    (sound,) = write_sounds(tmp_path, 1)
    part = io.BytesIO()
    soundfile.write(part, soundfile.read(sound)[0], RATE, format=kind)
    (tmp_path / "joined").write_bytes(part.getvalue() * 3)
    output = tmp_path / "captions.jsonl"
    run(exported, [tmp_path / "joined"], output, None, None, Options(window_s=1.0, loading=CPU))
    (timeline,) = map(json.loads, output.read_text().splitlines())
    assert timeline["segments"][-1]["end_s"] == pytest.approx(timeline["duration_s"])


def test_a_timeline_goes_on_within_a_file_after_an_interruption(
    exported: Path, sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output, options = tmp_path / "whole", tmp_path / "cut", Options(window_s=1.0, batch_size=2, loading=CPU)
    run(exported, sounds, whole, None, None, options)
    calls: list[int] = []
    real = Ensemble.caption_clips

    def counted(self: Ensemble, clips: Any, seed: int | None) -> Any:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(clips))
        return real(self, clips, seed)

    with monkeypatch.context() as patched:
        patched.setattr(Ensemble, "caption_clips", counted)
        with pytest.raises(KeyboardInterrupt):
            run(exported, sounds, output, None, None, options)
    assert calls == [2, 2]
    monkeypatch.setattr(Ensemble, "caption_clips", counted)
    calls[:] = [0, 0, 0]
    run(exported, sounds, output, None, None, options)
    assert sum(calls) == 7 - 4, "the windows that were left"
    assert output.read_text() == whole.read_text()
    assert {*tmp_path.iterdir()} == {whole, output}


@pytest.mark.parametrize(
    ("options", "files", "message"),
    [
        ({"format": Format.SRT}, {}, "--format srt: found 3 files"),
        ({"format": Format.TABLE}, {"output": "a.txt"}, "--format table is for people"),
        ({"format": Format.CSV}, {"submission": "a.csv"}, "--format csv is for --output or what is printed"),
        ({"window_s": 1.0}, {"submission": "a.csv"}, "--submission takes one caption a file; leave out --window"),
        ({"window_s": 4.0}, {}, "--window: found 4.0, expected seconds from 0.1 to 3"),
        ({"hop_s": 4.0}, {}, "--hop: found 4.0 without --window"),
        ({}, {"output": "a.csv", "submission": "a.csv"}, "--submission .*a.csv: is the file of --output, too"),
        ({}, {"output": "."}, "is a directory"),
    ],
)
def test_what_cannot_be_done_is_told_before_a_bundle_is_loaded(
    exported: Path,
    sounds: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    files: dict[str, str],
    message: str,
) -> None:
    monkeypatch.setattr(caption, "load_ensemble", lambda *_: pytest.fail("the bundle was loaded"))
    paths = {name: tmp_path / file for name, file in files.items()}
    with pytest.raises(InputError, match=message):
        run(exported, sounds, paths.get("output"), paths.get("submission"), None, Options(**options))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("task", [6, 8])
def test_names_that_no_submission_can_hold_are_told_before_a_bundle_is_loaded(
    exported: Path, sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: int
) -> None:
    for used in (caption, retrieve):
        monkeypatch.setattr(used, "load_ensemble", lambda *_: pytest.fail("the bundle was loaded"))
    for name in [*map(str, range(10)), "b\udcff"]:
        (tmp_path / f"{name}.wav").symlink_to(sounds[0])
    submission = tmp_path / "a.csv"
    (tmp_path / "captions.csv").write_text("caption\nrain\n")
    submit = {
        6: lambda: run(exported, [tmp_path], None, submission, None),
        8: lambda: retrieve.submit(exported, tmp_path / "captions.csv", [tmp_path], submission),
    }
    with pytest.raises(SubmissionError, match=r"a\.csv: the name 'b\\udcff\.wav' is not UTF-8, .*; rename"):
        submit[task]()


def test_where_and_how_precisely_it_computes(exported: Path) -> None:
    ensemble = load_ensemble(exported, Loading("meta", "bf16"), ask_captioners=False)
    assert (ensemble.device.type, str(ensemble.precision.dtype)) == ("meta", "torch.bfloat16")
    assert load_ensemble(exported, Loading("cpu", int8=True)).precision.int8


def test_nothing_is_kept_beside_a_device(exported: Path, sounds: list[Path]) -> None:
    null = Path(os.devnull)
    before = {*null.parent.iterdir()}
    run(exported, sounds[:1], null, null, None, Options(loading=CPU))
    assert {*null.parent.iterdir()} == before
    assert null.is_char_device()


@pytest.mark.parametrize("wrong", ["5", "[]", "{}", '"a"', "null", '{"path": "x"}'])
def test_a_journal_of_other_content_is_not_gone_on_with(wrong: str, tmp_path: Path) -> None:
    good = {"path": "a.wav", "text": "rain", "score": 0.5, "candidates": []}
    window = {"start_s": 0.0, "end_s": 1.0, "text": "rain", "score": 0.5, "candidates": []}
    path = tmp_path / "journal"
    for value in (good, window):
        line = json.dumps(["b", value])
        path.write_text(f'["a", {json.dumps(good)}]\n["c", {wrong}]\n{line}\n')
        assert Journal(path, _is_caption).done == {"a": good}
        path.write_text(f"{line}\n")
        assert Journal(path, _is_caption).done == {"b": value}
