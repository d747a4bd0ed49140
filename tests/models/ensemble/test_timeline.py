"""The timeline of a long recording has the caption that each window would have as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from models import Caption, Ensemble, TimedCaption, Timeline
from models.audio import AudioError
from models.audio_sources import Recording
from models.ensemble.timeline import timelines
from models.errors import InputError
from models.long_audio import Windowing

from ...small_bundle import RATE, write_bundle, write_sounds


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    return Ensemble.load(write_bundle(tmp_path_factory.mktemp("bundle")), device="cpu")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four sounds of a second each, and all of them in one file."""
    folder = tmp_path_factory.mktemp("sounds")
    samples = [soundfile.read(path, RATE, dtype="int16")[0] for path in write_sounds(folder, 4)]
    paths = [folder / f"{name}.flac" for name in (0, 1, 2, 3, "long")]
    for path, content in zip(paths, [*samples, np.concatenate(samples)], strict=True):
        soundfile.write(path, content, RATE)
    return paths


def test_a_window_has_the_caption_of_a_file(ensemble: Ensemble, sounds: list[Path]) -> None:
    *parts, long = sounds
    apart = ensemble.caption(parts, seed=3)
    assert len({caption.text for caption in apart}) > 1
    for batch_size in (1, 3, 16):
        short, whole = ensemble.caption([parts[1], long], seed=3, window_s=1.0, batch_size=batch_size)
        assert (short.duration_s, whole.duration_s) == (1.0, 4.0)
        assert [(one.start_s, one.end_s) for one in whole.segments] == [(0, 1), (1, 2), (2, 3), (3, 4)]
        assert [one.caption.text for one in whole.segments] == [caption.text for caption in apart]
        assert [one.caption.text for one in short.segments] == [apart[1].text]
        for one, caption in zip(whole.segments, apart, strict=True):
            assert one.caption.score == pytest.approx(caption.score, abs=1e-4)
    (overlapping,) = ensemble.caption([long], seed=3, window_s=1, hop_s=0.5)
    assert [one.caption.text for one in overlapping.segments[::2]] == [caption.text for caption in apart]


def test_captions_do_not_depend_on_the_batch(ensemble: Ensemble, sounds: list[Path]) -> None:
    whole = ensemble.caption(sounds)
    for batch_size in (1, 2):
        found = ensemble.caption((path for path in sounds), batch_size=batch_size)
        assert [caption.text for caption in found] == [caption.text for caption in whole]
    assert ensemble.caption([]) == ensemble.caption([], window_s=1.0) == []


def test_windows_share_batches_across_recordings() -> None:
    batches: list[int] = []

    def caption(some: Sequence[Recording]) -> list[Caption]:
        batches.append(len(some))
        return [Caption(one.name, 0.0, []) for one in some]

    ramp = np.linspace(0.1, 0.9, RATE, dtype=np.float32)
    files = [Recording.of((np.tile(ramp, number), RATE), str(number)) for number in (1, 2, 4)]
    found = timelines(files, Windowing(1.0, 1.0), 3, caption)
    assert batches == [3, 3, 1]
    assert [len(timeline.segments) for timeline in found] == [1, 2, 4]
    captions = [Caption("2 from 0.0 s to 1.0 s", 0.0, []), Caption("2 from 1.0 s to 2.0 s", 0.0, [])]
    assert found[1] == Timeline(2.0, [TimedCaption(0.0, 1.0, captions[0]), TimedCaption(1.0, 2.0, captions[1])])


def test_what_cannot_be_read_is_named(ensemble: Ensemble, sounds: list[Path], tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(AudioError, match=r"a\.wav: cannot be decoded"):
        ensemble.caption([sounds[0], tmp_path / "a.wav"], window_s=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_s": 3.5}, "window_s: found 3.5, expected seconds from 0.1 to 3, what is heard of a clip"),
        ({"window_s": 1.0, "hop_s": 2.0}, "hop_s: found 2.0"),
        ({"hop_s": 2.0}, "hop_s: found 2.0 without window_s"),
        ({"batch_size": 0}, "batch_size: found 0, expected a whole number, at least 1"),
        ({"batch_size": 2.0}, "batch_size: found 2.0"),
        ({"batch_size": True, "window_s": 1.0}, "batch_size: found True"),
        ({"seed": -1}, "seed: found -1, expected a whole number, from 0"),
        ({"seed": 1.5}, "seed: found 1.5"),
        ({"seed": True}, "seed: found True"),
        ({"seed": 2**64}, "seed: found 18446744073709551616"),
        ({"seed": "0"}, "seed: found '0'"),
    ],
)
def test_arguments_are_checked_before_any_work(
    ensemble: Ensemble, sounds: list[Path], arguments: dict[str, Any], message: str
) -> None:
    fresh = Ensemble.load(ensemble.directory, device="cpu")
    with pytest.raises(InputError, match=message):
        fresh.caption(sounds, **arguments)
    assert not {"codec", "retrievers", "captioners"} & {*fresh.__dict__}
