"""Captioning and indexing a directory go on after an interruption, with the result of an undisturbed run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.commands import caption, index
from models.commands.journal import Journal
from models.ensemble.bundle import Ensemble
from models.ensemble.clip import Clip

# One file at a time, so that a run can be interrupted between two.
CAPTIONED, INDEXED = caption.Options(batch_size=1), index.Options(batch_size=1)


@pytest.fixture
def files(smoke_run: Path, tmp_path: Path) -> list[Path]:
    """Four clips, then a file that is not audio."""
    directory = tmp_path / "audio"
    directory.mkdir()
    for clip in sorted((smoke_run.parent / "audio" / "test").glob("*.flac"))[:4]:
        shutil.copy(clip, directory)
    (directory / "unreadable.wav").write_bytes(b"RIFF nothing")
    return sorted(directory.iterdir())


def interrupt(patched: pytest.MonkeyPatch, method: str, after: int | None) -> list[int]:
    """Raise KeyboardInterrupt in a method of the ensemble after some calls, or never; return the clips of each call."""
    calls: list[int] = []
    real = getattr(Ensemble, method)

    def counted(self: Ensemble, *arguments: Sequence[Clip], **options: object) -> object:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(len(arguments[0]))
        return real(self, *arguments, **options)

    patched.setattr(Ensemble, method, counted)
    return calls


def test_captions(smoke_run: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, whole, output = smoke_run / "bundle", tmp_path / "whole.jsonl", tmp_path / "new" / "captions.jsonl"
    caption.run(bundle, files, whole, None, None, CAPTIONED)
    assert len(whole.read_text().splitlines()) == 4
    with monkeypatch.context() as patched:
        interrupt(patched, "caption_clips", after=2)
        with pytest.raises(KeyboardInterrupt):
            caption.run(bundle, files, output, None, None, CAPTIONED)
    (journal,) = output.parent.iterdir()
    with journal.open("ab") as file:
        file.write(b'["half a li')
    os.utime(files[0], ns=(1, 1))  # captioned, and another file since
    with monkeypatch.context() as patched:
        calls = interrupt(patched, "caption_clips", after=None)
        caption.run(bundle, files, output, None, None, CAPTIONED)
    assert calls == [1, 1, 1], "the two that were left, and the one that has changed"
    assert output.read_text() == whole.read_text()
    assert list(output.parent.iterdir()) == [output]


def indexed(bundle: Path) -> dict[str, np.ndarray]:
    """Return the embeddings of each path by the first retriever."""
    audio_index = Ensemble.load(bundle).audio_index
    return dict(zip(audio_index.paths, next(iter(audio_index.embeddings.values())), strict=True))


def test_index(smoke_run: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, bundle = tmp_path / "whole", tmp_path / "bundle"
    for copy in (whole, bundle):
        shutil.copytree(smoke_run / "bundle", copy, ignore=shutil.ignore_patterns("index"))
    index.run(whole, files, INDEXED)
    monkeypatch.setattr(index, "SAVE_S", -1.0)
    with monkeypatch.context() as patched:
        interrupt(patched, "index_clips", after=2)
        with pytest.raises(KeyboardInterrupt):
            index.run(bundle, files, INDEXED)
    assert list(indexed(bundle)) == [str(path) for path in files[:2]]
    os.utime(files[0], ns=(1, 1))
    with monkeypatch.context() as patched:
        calls = interrupt(patched, "index_clips", after=None)
        index.run(bundle, files, INDEXED)
    assert calls == [1, 1], "the two that were left, and not the one that was touched"
    found, expected = indexed(bundle), indexed(whole)
    assert found.keys() == expected.keys() == {str(path) for path in files[:4]}
    for path, embedding in expected.items():
        np.testing.assert_array_equal(found[path], embedding)
    with monkeypatch.context() as patched:
        calls = interrupt(patched, "index_clips", after=None)
        index.run(bundle, files, INDEXED)
    assert calls == [], "nothing has changed"
    suffixes = {path.suffix for path in (bundle / "index").iterdir()}
    assert suffixes == {".json", ".numbers", ".parquet", ".rows", ".spans"}, "nothing of the interrupted run is left"


def test_a_journal_drops_a_line_that_was_cut_short(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "journal")
    journal.add("a", {"text": "ein Bär"})
    journal.add("b", {"text": "rain"})
    whole = journal.path.read_bytes()
    for end in range(len(whole)):
        path = tmp_path / "cut"
        path.write_bytes(whole[:end])
        kept = Journal(path)
        assert list(kept.done) == ["a", "b"][: whole[:end].count(b"\n")]
        kept.add("c", {"text": "wind"})
        assert Journal(path).done == kept.done
    journal.remove()
    assert not journal.path.exists()


@pytest.mark.parametrize("damage", [b"\0" * 20, b"\xff\xfe", b"3", b"[1]", b'[["a"], 1]'])
def test_a_journal_goes_on_from_before_a_line_that_cannot_be_read(tmp_path: Path, damage: bytes) -> None:
    whole = b'["a.wav", 1]\n'
    (tmp_path / "journal").write_bytes(whole + damage + b'\n["b.wav", 2]\n')
    journal = Journal(tmp_path / "journal")
    assert journal.done == {"a.wav": 1}
    journal.add("b.wav", 3)
    assert (tmp_path / "journal").read_bytes() == whole + b'["b.wav", 3]\n'
