"""An ensemble takes audio as paths, bytes, open files and samples, and hears the same in all of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from models.audio import AudioError
from models.audio_sources import Recording, recordings
from models.ensemble import Ensemble
from models.errors import InputError

from ..small_bundle import RATE, write_bundle, write_sounds


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    return Ensemble.load(write_bundle(tmp_path_factory.mktemp("bundle")), device="cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (written,) = write_sounds(tmp_path_factory.mktemp("sounds"), 1)
    return written


def forms(path: Path) -> dict[str, Any]:
    """The same sound in every form."""
    integers, _ = soundfile.read(path, dtype="int16")
    floats = integers / np.float32(32_768)
    return {
        "str": str(path),
        "bytes": path.read_bytes(),
        "open file": io.BytesIO(path.read_bytes()),
        "int16": (integers, RATE),
        "float": (floats, RATE),
        "double": (floats.astype(np.float64), np.int64(RATE)),
        "channels": (np.stack([floats, floats]), RATE),
        "tensor": (torch.from_numpy(floats), RATE),
    }


def test_all_forms_are_heard_alike(ensemble: Ensemble, path: Path) -> None:
    sources = forms(path)
    expected, *found = ensemble.read([path, *sources.values()])
    for form, clip in zip(sources, found, strict=True):
        assert clip.duration_s == expected.duration_s, form
        np.testing.assert_array_equal(clip.codes, expected.codes, form)
        np.testing.assert_array_equal(clip.log_mel, expected.log_mel, form)
    captions = ensemble.caption([path, *list(forms(path).values())[:3]])
    assert len({caption.text for caption in captions}) == 1


def test_another_rate_is_resampled(path: Path) -> None:
    samples, _ = soundfile.read(path, dtype="float32")
    (heard,) = recordings([(samples, 2 * RATE)])
    assert heard.duration_s() == len(samples) / RATE / 2
    assert len(heard.samples(RATE, 10.0)) == len(samples) / 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"RIFF nothing", "audio 2 of 2: cannot be decoded as audio"),
        (b"", "audio 2 of 2: cannot be decoded as audio"),
        (io.StringIO("text"), "audio 2 of 2: found StringIO, expected a path, bytes, a file opened in binary mode"),
        (3, "audio 2 of 2: found int, expected a path"),
        (None, "audio 2 of 2: found NoneType, expected"),
        (np.zeros(8), r"audio 2 of 2: found ndarray, expected .* or \(samples, sample rate\)"),
        ((np.zeros(8, np.int32), RATE), "found samples of int32, expected floats of full scale 1, or int16"),
        (
            (np.zeros((8, 2), np.float32), RATE),
            r"found samples of shape \(8, 2\), expected \[time\] or \[chan",
        ),
        (([[0.0], [0.0, 0.1]], RATE), "samples cannot be read as an array"),
        ((torch.zeros(8, device="meta"), RATE), "samples cannot be read as an array"),
        ((np.zeros((1, 1, 8), np.float32), RATE), r"shape \(1, 1, 8\)"),
        ((np.zeros(8, np.float32), 0), "found the sample rate 0, expected a whole number of Hz above 0"),
        ((np.zeros(8, np.float32), "16k"), "found the sample rate '16k'"),
        ((np.zeros(0, np.float32), RATE), "audio 2 of 2: holds no samples"),
        ((np.zeros(8, np.float32), RATE), "audio 2 of 2: is digital silence"),
        ((np.full(8, np.nan, np.float32), RATE), "audio 2 of 2: holds NaN"),
        ("gone.wav", r"gone\.wav: no such file"),
    ],
)
def test_what_cannot_be_heard_is_named(path: Path, source: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        [one.samples(RATE, 10.0) for one in recordings([path, source])]


def test_one_source_is_not_a_list(ensemble: Ensemble, path: Path) -> None:
    samples = np.ones(RATE, np.float32)
    for one in (str(path), path, path.read_bytes(), (samples, RATE), io.BytesIO(b""), {"a": path}, 3, None):
        for ask in (ensemble.caption, ensemble.index, ensemble.read):
            with pytest.raises(
                AudioError, match=r"sources: found one \w+, expected a list, each a path.*; put it in brackets"
            ):
                ask(one)  # type: ignore[arg-type]
    for unlisted in (samples, torch.from_numpy(samples)):
        with pytest.raises(AudioError, match=r"audio 1 of 16000: found \w+, expected a path"):
            ensemble.caption(unlisted)


def test_a_file_is_read_once(path: Path) -> None:
    recording = Recording.of(io.BytesIO(path.read_bytes()), "a")
    assert len(recording.samples(RATE, 10.0)) == len(recording.samples(RATE, 10.0)) == RATE


def test_audio_without_a_path_is_indexed_by_name(ensemble: Ensemble, path: Path) -> None:
    sources: list[Any] = [path, path.read_bytes()]
    with pytest.raises(InputError, match="names: found 1 of 2 without a path; give all a name"):
        ensemble.index(sources)
    for names, message in [
        (["a"], "names: found 1, expected one for each of 2"),
        ("ab", "names: found one str, expected a list of texts"),
        (3, "names: found one int, expected a list of texts"),
        (["a", 3], "names: found int in place 2 of 2, expected a text"),
        (["a", "a"], "names: found 'a' more than once"),
    ]:
        with pytest.raises(InputError, match=message):
            ensemble.index(sources, names=names)  # type: ignore[arg-type]
    ensemble.index([path, path.read_bytes()], names=["a", "b"])
    found = {match.path: match.similarity for match in ensemble.retrieve("a dog barks")}
    assert found.keys() == {"a", "b"}
    assert found["a"] == pytest.approx(found["b"], abs=1e-6)


def test_nothing_is_loaded_before_it_is_needed(ensemble: Ensemble) -> None:
    fresh = Ensemble.load(ensemble.directory, device="cpu")
    parts = {"retrievers", "captioners", "codec", "detector"}
    assert not parts & {*fresh.__dict__}
    fresh.index([], names=[])
    assert not parts & {*fresh.__dict__}
    assert fresh.retrievers.keys() == {"retriever"}
    assert parts & {*fresh.__dict__} == {"retrievers"}
