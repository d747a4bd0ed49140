"""Which files commands find in a folder, and what they say of them: those left out, and those heard only in part."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from models.codec.base import load_codec
from models.commands.audio_files import SHOWN, find_audio, read_in_batches
from models.encoders.log_mel import LogMel
from models.ensemble import Ensemble
from models.settings import LogMelConfig

RATE = 16_000
FRONT_END = LogMelConfig(sample_rate=RATE, n_fft=512, hop_length=160, n_mels=16, f_min=50, f_max=8000)


def ensemble(**max_frames: int) -> Ensemble:
    """An ensemble that reads 2 s of a clip, by one retriever and captioners with position tables of these sizes."""
    made = Ensemble.__new__(Ensemble)
    made.ask_captioners = False
    made.manifest = SimpleNamespace(max_duration_s=2.0, log_mel=FRONT_END)  # type: ignore[assignment]
    made.codec, made.log_mel = load_codec("dac-soundscapes-16khz", 2), LogMel(FRONT_END)
    made.retrievers = {"bge": SimpleNamespace(waveform_rate=None)}  # type: ignore[dict-item]
    made.captioners = {name: captioner("crop", frames) for name, frames in max_frames.items()}
    made.captioners["pooling"] = captioner("pool", 1)
    return made


def captioner(long_clips: str, max_frames: int) -> Any:
    return SimpleNamespace(config=SimpleNamespace(long_clips=long_clips), max_frames=max_frames)


def write(folder: Path, *seconds: float) -> list[Path]:
    paths = [folder / f"{number}.wav" for number in range(len(seconds))]
    for path, duration_s in zip(paths, seconds, strict=True):
        soundfile.write(path, np.sin(np.arange(round(RATE * duration_s)) / 9), RATE)
    return paths


def said_of(made: Ensemble, paths: list[Path], capsys: pytest.CaptureFixture[str], captioning: bool = False) -> str:
    read = [path for readable, _ in read_in_batches(made, paths, captioning=captioning) for path in readable]
    assert read == paths
    return capsys.readouterr().err


def test_a_clip_is_read_in_part_and_knows_how_long_it_is(tmp_path: Path) -> None:
    short, long = ensemble().read(write(tmp_path, 1.5, 3.0))
    assert (short.duration_s, long.duration_s) == (1.5, 3.0)
    assert len(long.codes) == round(2.0 * ensemble().codec.frame_rate)


def test_files_that_are_longer_than_what_is_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write(tmp_path, 1.0, 3.25, 2.0, 2.05)
    (line,) = said_of(ensemble(), paths, capsys).splitlines()
    assert f"heard in part: {paths[1]}: the first 2.0 s of 3.2 s" in line, "2.05 s is what a codec's delay makes of 2 s"


def test_files_that_a_captioner_does_not_hear_to_the_end_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ensemble(wide=25, deep=100)  # 1 s and 4 s of 25 frames a second
    assert made.codec.frame_rate == 25
    assert made.limits_s() == {"bge": 2.0, "wide": 1.0, "deep": 2.0, "pooling": 2.0}
    paths = write(tmp_path, 1.0, 1.5)
    assert not said_of(made, paths, capsys), "retrievers hear all of both"
    (line,) = said_of(made, paths, capsys, captioning=True).splitlines()
    assert f"heard in part by wide: {paths[1]}: the first 1.0 s of 1.5 s" in line


def test_many_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said_of(ensemble(), write(tmp_path, *[3.0] * (SHOWN + 2)), capsys).splitlines()
    assert len(lines) == SHOWN + 1
    assert lines[-1].endswith("heard in part: 2 more files")
    assert find_audio([tmp_path])


def test_all_that_holds_sound_is_found_in_a_folder_and_nothing_hidden(tmp_path: Path) -> None:
    sounds = ["a.wav", "b.M4A", "c/d.au", "c/e.caf", "c/f.w64", "g.webm", "h.MP3"]
    others = ["._a.wav", ".hidden/a.wav", "c/.trash/d.flac", "notes.txt", "a.wav.part", "folder.wav/notes.txt"]
    for name in [*sounds, *others]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_audio([tmp_path]) == [tmp_path / name for name in sounds]
    assert find_audio([tmp_path / "._a.wav"]) == [tmp_path / "._a.wav"], "what is named is read"
    assert find_audio([tmp_path / ".hidden"]) == [tmp_path / ".hidden/a.wav"]


def test_files_that_cannot_be_read_are_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 1.0)
    (tmp_path / "broken.m4a").write_text("this is not audio")
    read = [path for readable, _ in read_in_batches(ensemble(), find_audio([tmp_path])) for path in readable]
    assert read == [tmp_path / "0.wav"]
    first, last = capsys.readouterr().err.splitlines()
    assert f"left out: {tmp_path}/broken.m4a: cannot be decoded as audio" in first
    assert last.endswith("left out: 1 of 2 files, which could not be read")
