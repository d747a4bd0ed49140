"""`enclap index` brings an index up to date: what is new, changed, touched, moved or gone, and what it tells of it."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from models.commands import caption, embed, index, verify
from models.commands.options import Searching
from models.commands.retrieve import searchable
from models.commands.serve_local import only_writer
from models.ensemble import Ensemble
from models.ensemble.index import AudioIndex
from models.errors import InputError
from models.files import CheckpointError, stamp
from models.retriever.model import Retriever
from models.retriever.optimal_transport import MahalanobisMetric
from tests.small_bundle import write_bundle, write_sounds


def retriever(factor: np.ndarray) -> Retriever:
    """Return a retriever of nothing but its metric."""
    made = Retriever.__new__(Retriever)
    torch.nn.Module.__init__(made)
    made.metric = MahalanobisMetric(len(factor))
    made.metric.factor.data = torch.from_numpy(factor).float()
    return made


class Indexed:
    """Stands for an ensemble whose index has 30 files under three retrievers, one of which tells none of them apart.

    The metric of another stretches a direction along which all files lie on one side.
    """

    ask_captioners = False

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(30, 8)).astype(np.float32)
        shifted = rows + np.eye(8, dtype=np.float32)[0]
        self.retrievers = {"good": retriever(np.eye(8)), "collapsed": retriever(np.eye(8))}
        self.retrievers["stretched"] = retriever(np.diag([100.0, *[1.0] * 7]) + 0.5 * np.eye(8, k=1))
        embeddings = {"good": rows, "collapsed": 5 + 0.1 * rows, "stretched": shifted}
        mapped = {name: self.retrievers[name].under_metric(one) for name, one in embeddings.items()}
        self.audio_index = AudioIndex([str(n) for n in range(30)], mapped)

        self.directory = Path("bundle")

    def save_index(self) -> str:
        return "index"

    def make_lists(self) -> None:
        """Return that none are needed."""


def test_an_index_of_clips_that_are_all_but_alike_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.wav").touch()
    monkeypatch.setattr(index, "load_ensemble", lambda *_: Indexed())
    monkeypatch.setattr(index, "add_files", lambda *_: [])
    monkeypatch.setattr(index, "windows_asked", lambda *_: None)
    index.run(tmp_path, [tmp_path])
    said = [line for line in capsys.readouterr().err.splitlines() if "alike" in line]
    assert len(said) == 1
    assert "index: collapsed: the embeddings of clips are all but alike (mean cosine 1.000" in said[0]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda record: record.write_text("{}"), "format None"),
        (lambda record: record.write_text("no JSON"), "not JSON"),
        (lambda record: record.write_text(record.read_text().replace('"format": 2', '"format": 99')), "format 99"),
        (lambda record: truncate(next(record.parent.glob("*.rows"))), "damaged"),
        (lambda record: next(record.parent.glob("*.parquet")).unlink(), "damaged"),
        (lambda record: next(record.parent.glob("*.parquet")).write_bytes(b"PAR1"), "damaged"),
        (lambda record: (record.parent / "lists.json").write_text("{}"), "lists.json"),
    ],
    ids=["no fields", "no JSON", "newer", "cut rows", "no files", "cut files", "lists alone"],
)
def test_an_index_that_cannot_be_used_is_begun_afresh_and_stops_nothing_else(
    damage: Callable[[Path], object],
    told: str,
    bundle: Path,
    sounds: list[Path],
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    index.run(bundle, sounds)
    damage(bundle / "index" / "collection.json")
    caption.run(bundle, sounds[:1], None, None, None)
    embed.run(bundle, sounds[:1], None, bundle.parent / "a.parquet", embed.Options())
    with pytest.raises(CheckpointError, match=told):
        loaded(bundle)
    capfdbinary.readouterr()
    index.run(bundle, sounds[:2])
    said = capfdbinary.readouterr().err.decode()
    if told == "lists.json":  # whose rows are all there
        assert "begun afresh" not in said
        assert len(loaded(bundle)) == 4
    else:
        assert re.search(f"index: begun afresh, with these files alone, as it cannot be used: .*{told}", said)
        assert len(loaded(bundle)) == 2


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_a_member_that_cannot_be_loaded_costs_no_index(bundle: Path, sounds: list[Path]) -> None:
    index.run(bundle, sounds)
    before = {path: path.read_bytes() for path in (bundle / "index").iterdir()}
    (bundle / "members" / "retriever" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"retriever/config\.json"):
        index.run(bundle, sounds)
    assert {path: path.read_bytes() for path in (bundle / "index").iterdir()} == before


def test_one_process_at_a_time_adds_files(tmp_path: Path) -> None:
    bundle, sounds = write_bundle(tmp_path / "bundle"), write_sounds(tmp_path / "sounds", 2)
    with (
        FileLock(bundle / index.LOCK),
        pytest.raises(InputError, match="another process is changing its index; wait for it, or stop it"),
    ):
        index.run(bundle, sounds)
    index.run(bundle, sounds)
    assert len(Ensemble.load(bundle, device="cpu").audio_index) == 2


@pytest.mark.parametrize("found", ["a file", "a link that leads nowhere"])
def test_what_is_no_directory_in_the_place_of_an_index_is_named(bundle: Path, sounds: list[Path], found: str) -> None:
    place = bundle / "index"
    shutil.rmtree(place, ignore_errors=True)
    place.touch() if found == "a file" else place.symlink_to("lost")
    message = f"{place}: found {found}, expected the directory of an index, or nothing; move it away"
    for use in (
        lambda: index.run(bundle, sounds),
        lambda: searchable(bundle, Searching([])),
        lambda: verify.run(bundle, self_test=False),
        lambda: Ensemble.load(bundle, "cpu").audio_index,
        lambda: Ensemble.load(bundle, "cpu").save_index(),
    ):
        with pytest.raises(CheckpointError, match=message):
            use()


@pytest.mark.parametrize("changing", [index.index_lock, partial(only_writer, writes=True)])
def test_a_bundle_that_cannot_be_written_is_named(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, changing: Callable[[Path], AbstractContextManager[None]]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", fail)  # which FileLock calls
    message = rf"{bundle}: cannot be written \(Read-only file system\).*; copy the bundle to a place that is writable"
    with pytest.raises(InputError, match=message), changing(bundle):
        pass


def test_names_that_are_not_unicode_are_indexed_and_links_that_lead_nowhere_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, (sound,) = write_bundle(tmp_path / "bundle"), write_sounds(tmp_path / "sounds", 1)
    odd = Path(os.fsdecode(os.fsencode(sound.parent) + b"/b\xff.wav"))
    sound.rename(odd)
    (sound.parent / "link.wav").symlink_to("nowhere.wav")
    for _ in range(2):
        index.run(bundle, [sound.parent])
    said = capsys.readouterr().err
    assert "link.wav: is a link that leads nowhere" in said
    assert "0 files to add, 1 there already" in said
    assert Ensemble.load(bundle, device="cpu").audio_index.paths == [str(odd)]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    return write_sounds(tmp_path / "sounds", 4)


def loaded(bundle: Path) -> AudioIndex:
    return Ensemble.load(bundle, device="cpu").audio_index


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are computed from then on."""
    names: list[str] = []
    whole = Ensemble.index_clips

    def index_clips(ensemble: Ensemble, paths: list[Path], *rest: Any) -> None:
        names.extend(Path(path).name for path in paths)
        whole(ensemble, paths, *rest)

    monkeypatch.setattr(Ensemble, "index_clips", index_clips)
    return names


def test_files_that_were_touched_or_moved_are_not_computed_again(
    bundle: Path, sounds: list[Path], computed: list[str]
) -> None:
    folder = sounds[0].parent
    index.run(bundle, [folder])
    before = dict(zip(loaded(bundle).paths, loaded(bundle).embeddings["retriever"], strict=True))
    os.utime(sounds[0], ns=(1, 1))
    moved = folder / "deeper" / "moved.wav"
    moved.parent.mkdir()
    sounds[1].rename(moved)
    sounds[2].write_bytes(sounds[3].read_bytes())
    computed.clear()
    index.run(bundle, [folder])
    assert computed == [sounds[2].name], "its content is another one"
    after = dict(zip(loaded(bundle).paths, loaded(bundle).embeddings["retriever"], strict=True))
    assert {*after} == {*map(str, (sounds[0], moved, sounds[2], sounds[3]))}
    np.testing.assert_array_equal(after[str(moved)], before[str(sounds[1])])
    np.testing.assert_allclose(after[str(sounds[2])], before[str(sounds[3])], atol=1e-5)
    computed.clear()
    index.run(bundle, [folder])
    assert computed == []


@pytest.mark.parametrize("gone", [False, True])
def test_a_file_that_changes_while_it_is_indexed_is_read_again(
    gone: bool,
    bundle: Path,
    sounds: list[Path],
    computed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, read = sounds[0].read_bytes(), Ensemble.read
    new = old[:44] + old[44:][::-1]  # as many bytes of another sound

    def read_before_the_change(ensemble: Ensemble, *arguments: Any, **named: Any) -> list[Any]:
        clips = read(ensemble, *arguments, **named)
        if gone:
            sounds[0].unlink()
        else:
            sounds[0].write_bytes(new)
        return clips

    with monkeypatch.context() as patched:
        patched.setattr(Ensemble, "read", read_before_the_change)
        index.run(bundle, sounds)
    assert f"changed while it was read; the next run reads it again: {sounds[0]}" in capsys.readouterr().err
    sounds[0].write_bytes(new)
    computed.clear()
    index.run(bundle, sounds)
    assert computed == [sounds[0].name]
    expected = Ensemble.load(bundle, device="cpu").embed([sounds[0]])["retriever"]
    np.testing.assert_allclose(loaded(bundle).embeddings["retriever"][-1:], expected, atol=1e-5)


def test_files_that_are_gone_are_removed_where_they_were_looked_for(
    bundle: Path, sounds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_sounds(tmp_path / "other", 1)
    index.run(bundle, [sounds[0].parent, other[0]])
    sounds[0].unlink()
    other[0].unlink()
    index.run(bundle, [sounds[0].parent])
    assert loaded(bundle).paths == [*map(str, sounds[1:]), str(other[0])], "it was not looked for in its directory"
    assert f"removed, as it is gone: {sounds[0]}" in capsys.readouterr().err
    sounds[1].rename(sounds[1].with_name(".hidden.wav"))
    sounds[1].symlink_to(".hidden.wav")
    index.run(bundle, [sounds[0].parent])
    assert len(loaded(bundle)) == 4, "what a link leads to is there"


@pytest.mark.parametrize(("error", "stays"), [(PermissionError, True), (FileNotFoundError, False)])
def test_a_file_in_a_folder_that_must_not_be_read_is_not_gone(
    error: type[OSError], stays: bool, bundle: Path, sounds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    index.run(bundle, [sounds[0].parent])
    sounds[0].unlink()  # so that it is not found; tests may run as root, who may read everything
    look = os.path.realpath

    def refuse(path: str, *, strict: bool = False) -> str:
        if strict and path == str(sounds[0]):
            raise error(path)
        return look(path, strict=strict)

    monkeypatch.setattr(os.path, "realpath", refuse)
    index.run(bundle, [sounds[0].parent])
    assert (str(sounds[0]) in loaded(bundle).paths) == stays


@pytest.mark.parametrize("left", ["nothing", "another file", "no directory"])
def test_a_directory_that_lost_all_its_files_does_not_empty_the_index(
    left: str, bundle: Path, sounds: list[Path], tmp_path: Path
) -> None:
    folder, beside = sounds[0].parent, write_sounds(tmp_path / "beside", 1)
    index.run(bundle, [folder, *beside])
    for sound in sounds:
        sound.unlink()
    if left == "another file":
        write_sounds(folder / "new", 5)[4].rename(folder / "new.wav")
        for sound in (folder / "new").iterdir():
            sound.unlink()
    if left == "no directory":
        folder.rmdir()
    paths = [folder] if left == "no directory" else [folder, beside[0].parent]
    found = "no such file or directory;" if left == "no directory" else "all of the 4 files"
    with pytest.raises(InputError, match=f"{found} .* say --remove-gone"):
        index.run(bundle, paths)
    assert len(loaded(bundle)) == 5, "nothing has changed"
    index.run(bundle, paths, index.Options(remove_gone=True))
    new = [str(folder / "new.wav")] if left == "another file" else []
    assert loaded(bundle).paths == [str(beside[0]), *new]


def test_windows_are_indexed_with_their_times_and_are_not_replaced_by_whole_files_unasked(
    bundle: Path, sounds: list[Path], computed: list[str]
) -> None:
    every_half = index.Options(window_s=1.0, hop_s=0.5, batch_size=2)
    index.run(bundle, sounds[:2], every_half)
    windowed = loaded(bundle)
    assert windowed.paths == [str(sounds[0]), str(sounds[1]), str(sounds[1])]
    np.testing.assert_allclose(windowed.spans(windowed.rows), [(0, 1), (0, 1), (0.25, 1.25)])
    np.testing.assert_allclose([file.duration_s for file in windowed.files.present()], [1, 1.25])
    computed.clear()
    index.run(bundle, sounds[:2], every_half)
    assert computed == []
    with pytest.raises(InputError, match=r"is indexed in windows; say --window 1 --hop 0\.5 to go on so"):
        index.run(bundle, sounds)
    index.run(bundle, sounds[:2], index.Options(window_s=1.0))
    assert len(loaded(bundle)) == 3
    assert computed == [sounds[0].name, sounds[1].name, sounds[1].name], "windows lie elsewhere"


def test_a_run_that_was_interrupted_within_a_file_does_that_file_again(
    bundle: Path, sounds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = index.Options(window_s=0.5, hop_s=0.25, batch_size=2)
    monkeypatch.setattr(index, "SAVE_S", -1.0)
    whole, calls = Ensemble.index_clips, []

    def index_clips(ensemble: Ensemble, *arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        whole(ensemble, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Ensemble, "index_clips", index_clips)
        with pytest.raises(KeyboardInterrupt):
            index.run(bundle, sounds, options)
    half = loaded(bundle)
    assert 3 < len(half) < 12
    index.run(bundle, sounds, options)
    index.run(bundle, sounds, options)
    found = loaded(bundle)
    starts = {path.name: [] for path in sounds}  # type: dict[str, list[float]]
    for path, (start, _) in zip(found.paths, found.spans(found.rows), strict=True):
        starts[Path(path).name].append(float(start))
    assert all(one == sorted({*one}) for one in starts.values()), "no window is there twice"
    assert [len(one) for one in starts.values()] == [3, 4, 5, 6]


def test_durations_that_an_older_index_does_not_have_are_read(bundle: Path, sounds: list[Path]) -> None:
    ensemble = Ensemble.load(bundle, device="cpu")
    ensemble.index(sounds)
    for path in sounds:
        file = ensemble.audio_index.files.find(str(path))
        assert file
        file.stamp, file.duration_s = stamp(path), float("nan")
    ensemble.save_index()
    index.run(bundle, sounds[:1])
    np.testing.assert_allclose([file.duration_s for file in loaded(bundle).files.present()], [1, 1.25, 1.5, 1.75])
