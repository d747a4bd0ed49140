"""Which files commands find in a folder, and what they say of them: those left out, and those heard only in part."""

import errno
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from models.audio import AUDIO_SUFFIXES, load_audio
from models.codec.base import load_codec
from models.commands.audio_files import SHOWN, Reading, find_audio, read_in_batches, read_sounds
from models.console import progress_bar
from models.encoders.log_mel import LogMel
from models.ensemble import Ensemble
from models.errors import AudioError
from models.long_audio import Windowing
from models.settings import LogMelConfig

RATE = 16_000
FRONT_END = LogMelConfig(sample_rate=RATE, n_fft=512, hop_length=160, n_mels=16, f_min=50, f_max=8000)


def ensemble(**max_frames: int) -> Ensemble:
    """An ensemble that reads 2 s of a clip, by one retriever and captioners with position tables of these sizes."""
    made = Ensemble.__new__(Ensemble)
    made.ask_captioners = False
    made.manifest = SimpleNamespace(max_duration_s=2.0, log_mel=FRONT_END, codebooks=2)  # type: ignore[assignment]
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


@pytest.mark.parametrize(
    ("kind", "suffixes"),
    [
        ("AVR", "avr"), ("HTK", "htk"), ("IRCAM", "ircam sf"), ("NIST", "nist sph"), ("OGG", "ogx"), ("PAF", "paf"),
        ("PVF", "pvf"), ("SDS", "sds"), ("SVX", "8svx svx"), ("WAV", "bwf wave"), ("XI", "xi"),
    ],
)  # fmt: skip
def test_what_can_be_decoded_is_found_under_its_usual_suffixes(tmp_path: Path, kind: str, suffixes: str) -> None:
    files = [tmp_path / f"a.{suffix}" for suffix in suffixes.split()]
    for file in files:
        soundfile.write(file, np.sin(np.arange(RATE) / 9), RATE, format=kind)
    assert find_audio([tmp_path]) == files
    assert len(load_audio(files[0], RATE)) > 0
    assert {file.suffix for file in files} <= AUDIO_SUFFIXES


def test_linked_folders_are_read_once_and_not_in_circles(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    for file in (folder / "sub/a.wav", elsewhere / "deep/b.flac", tmp_path / "beside.wav"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for link, target in {
        folder / "again": folder / "sub",
        folder / "linked": elsewhere,
        folder / "sub/up": tmp_path,
        elsewhere / "deep/back": folder,
        folder / "self": folder / "self",
    }.items():
        link.symlink_to(target)
    assert find_audio([folder]) == [folder / "linked/deep/b.flac", folder / "sub/a.wav"]


def test_what_cannot_be_opened_in_a_folder_is_named_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (good,) = write(tmp_path, 1.0)
    locked = tmp_path / "locked"
    locked.mkdir()
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    scandir = os.scandir

    def refuse(path: str) -> Any:  # root may read everything
        if str(path) == str(locked):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert find_audio([tmp_path]) == [good]
    said = capsys.readouterr().err
    assert f"left out: {tmp_path}/link.wav: is a link that leads nowhere" in said
    assert f"left out: {tmp_path}/pipe.wav: is a pipe, a socket or a device" in said
    assert f"left out: {locked}: may not be read (Permission denied)" in said
    assert said.endswith("left out: 3 of 4 paths, which cannot be opened\n")
    with pytest.raises(AudioError, match=r"no audio files found beside .*locked: may not be read .*; looked for"):
        find_audio([locked])


def test_a_path_that_may_not_be_reached_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: bool) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with pytest.raises(AudioError, match=r"a\.wav: no such file or directory"):
        find_audio([tmp_path / "a.wav"])
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(AudioError, match=r"a\.wav: may not be reached \(Permission denied\)"):
        find_audio([tmp_path / "a.wav"])


def test_files_that_cannot_be_read_are_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 1.0)
    (tmp_path / "broken.m4a").write_text("this is not audio")
    read = [path for readable, _ in read_in_batches(ensemble(), find_audio([tmp_path])) for path in readable]
    assert read == [tmp_path / "0.wav"]
    first, last = capsys.readouterr().err.splitlines()
    assert f"left out: {tmp_path}/broken.m4a: cannot be decoded as audio" in first
    assert last.endswith("left out: 1 of 2 files, which could not be read")


def test_windows_are_read_in_batches_across_files_and_those_that_are_done_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write(tmp_path, 2.5, 1.0, 2.0)
    paths[1].write_text("this is not audio")
    reading = Reading(2, Windowing(1.0, 1.0), captioning=True, done=lambda sound: sound.start_s == 1.0)
    batches = list(read_sounds(ensemble(wide=20), paths, reading))
    assert [[(one.sound.path, one.sound.start_s, one.sound.end_s) for one in batch] for batch in batches] == [
        [(paths[0], 0.0, 1.0), (paths[0], 1.5, 2.5)],
        [(paths[2], 0.0, 1.0)],
    ]
    assert {len(one.clip.codes) for batch in batches for one in batch} == {25}
    said = capsys.readouterr().err
    assert "heard in part by wide: each window: the first 0.8 s of 1.0 s" in said
    assert f"left out: {paths[1]}: cannot be decoded" in said


def test_a_long_file_that_ends_too_early_is_heard_up_to_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("models.audio._BLOCK", RATE)
    (path,) = write(tmp_path, 8.0)
    whole = tmp_path / "a.flac"
    soundfile.write(whole, soundfile.read(path)[0], RATE)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    (heard,) = read_sounds(ensemble(), [whole], Reading(windowing=Windowing(1.0, 1.0)))
    end_s = heard[-1].sound.end_s
    assert end_s in (4.0, 5.0)
    assert f"left out from {end_s} s on: {whole}: is truncated" in capsys.readouterr().err


def test_a_progress_bar_says_units_a_second_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(8, "files", "reading") as bar:
        bar.start_t -= 40.0  # as if it had begun then
        bar.update(4)
    assert "reading:  50%" in capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"\| 4 of 8 files,  0\.\d\d files/s, 00:\d\d left", bar.__str__())
