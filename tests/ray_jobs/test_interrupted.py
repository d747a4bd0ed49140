"""Captioning and indexing a folder: a run that was interrupted goes on, and says what an undisturbed one says."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from models.ensemble.bundle import Clip, Ensemble
from ray_jobs import caption, retrieve
from ray_jobs.inference import audio_files


@pytest.fixture
def files(smoke_run: Path, tmp_path: Path) -> list[Path]:
    """Four clips, and a file that is none; read one at a time."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for clip in sorted((smoke_run.parent / "audio" / "test").glob("*.flac"))[:4]:
        shutil.copy(clip, folder)
    (folder / "broken.wav").write_bytes(b"RIFF nothing")
    return sorted(folder.iterdir())


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one = functools.partial(audio_files.read_in_batches, batch_size=1)
    for job in (caption, retrieve):
        monkeypatch.setattr(job, "read_in_batches", one)


def interrupt(patched: pytest.MonkeyPatch, method: str, after: int | None) -> list[int]:
    """Let a method of the ensemble end its process at a call, or at none; returns the number of clips of each call."""
    calls: list[int] = []
    real = getattr(Ensemble, method)

    def counted(self: Ensemble, *arguments: Sequence[Clip], **options: object) -> object:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(len(arguments[0]))
        return real(self, *arguments, **options)

    patched.setattr(Ensemble, method, counted)
    return calls


@pytest.mark.usefixtures("one_by_one")
def test_captions(smoke_run: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, whole, output = smoke_run / "bundle", tmp_path / "whole.jsonl", tmp_path / "new" / "captions.jsonl"
    caption.run(bundle, files, whole, None, None)
    with monkeypatch.context() as patched:
        interrupt(patched, "caption_clips", after=2)
        with pytest.raises(KeyboardInterrupt):
            caption.run(bundle, files, output, None, None)
    (journal,) = output.parent.iterdir()
    with journal.open("ab") as file:
        file.write(b'["half a li')
    for path in (files[0], files[1]):  # the first was captioned and is another file now
        os.utime(path, ns=(1, 1)) if path == files[0] else None
    with monkeypatch.context() as patched:
        calls = interrupt(patched, "caption_clips", after=None)
        caption.run(bundle, files, output, None, None)
    assert output.read_text() == whole.read_text()
    assert list(output.parent.iterdir()) == [output]
    assert len(calls) == 3
