"""Large collections on a cluster: folders and buckets in, Parquet parts out, nothing done twice."""

import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import ray
import soundfile
from pyarrow import fs

from models.audio import AudioError
from models.commands import index
from models.ensemble.bundle import Ensemble
from models.errors import InputError
from models.files import CheckpointError
from ray_jobs import caption_collection, index_collection
from ray_jobs.caption_collection import caption_job
from ray_jobs.experiment.config import ActorResources, ConfigError
from ray_jobs.inference import batch
from ray_jobs.inference.collection import Collection, Output, find_files, plan_parts
from ray_jobs.run import storage

from ...small_bundle import RATE, write_bundle, write_sounds
from ..object_store import CREDENTIALS, ObjectStore


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    os.environ |= CREDENTIALS  # before the workers start
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    for name in CREDENTIALS:
        del os.environ[name]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    """Five sounds in a folder of two levels, beside a file that is none and what macOS leaves."""
    paths = [*write_sounds(tmp_path / "sounds", 3), *write_sounds(tmp_path / "sounds" / "field: #2 [x]", 2)]
    (tmp_path / "sounds" / "broken.wav").write_bytes(b"RIFF....")
    (tmp_path / "sounds" / "._sound-0.wav").write_bytes(b"\0")
    return paths


def actors(number: int) -> ActorResources:
    return ActorResources(workers=number)


def read(output: Output) -> pd.DataFrame:
    return pd.concat([pq.read_table(part).to_pandas() for part in output.parts()]).sort_values(
        "path", ignore_index=True
    )


def test_captions_are_those_of_one_process_and_bad_files_are_set_aside(
    bundle: Path, sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "PART", 2)
    where = str(tmp_path / "captions")
    caption_collection.run(Collection(str(bundle), [str(tmp_path / "sounds")], where, actors(2)))
    rows = read(Output(where))
    assert rows["path"].tolist() == sorted(map(str, sounds))
    assert len(Output(where).parts()) == 3
    expected = Ensemble.load(bundle, "cpu").caption(rows["path"].tolist())
    assert rows["text"].tolist() == [one.text for one in expected]
    assert rows["score"].tolist() == pytest.approx([one.score for one in expected], abs=1e-4)
    for found, one in zip(rows["candidates"], expected, strict=True):
        assert {candidate["text"] for candidate in found} == {candidate.text for candidate in one.candidates}
    quarantine = pd.read_csv(tmp_path / "captions" / "quarantine.csv")
    assert quarantine["path"].tolist() == [str(tmp_path / "sounds" / "broken.wav")]
    assert "broken.wav" in quarantine["reason"][0]


def test_what_is_done_is_not_done_again_but_for_files_that_changed(
    bundle: Path,
    sounds: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(batch, "PART", 2)
    where, folder = str(tmp_path / "captions"), str(tmp_path / "sounds")
    caption_collection.run(Collection(str(bundle), [folder], where, actors(1)))
    lost = Output(where).parts()[0]
    todo = {*pq.read_table(lost)["path"].to_pylist(), str(sounds[4])}
    lost.unlink()  # as if the run had been killed before it
    sounds[4].write_bytes(sounds[0].read_bytes())
    capsys.readouterr()
    caption_collection.run(Collection(str(bundle), [folder], where, actors(1)))
    assert f"{len(todo)} files to do, {6 - len(todo)} done already" in capsys.readouterr().err
    rows = read(Output(where))
    assert rows["path"].tolist() == sorted(map(str, sounds))
    assert rows["text"][rows["path"] == str(sounds[4])].item() == rows["text"][rows["path"] == str(sounds[0])].item()
    caption_collection.run(Collection(str(bundle), [folder], where, actors(1)))
    assert "0 files to do, 6 done already" in capsys.readouterr().err


def test_an_output_of_another_seed_is_not_mixed_with_this(bundle: Path, sounds: list[Path], tmp_path: Path) -> None:
    collection = Collection(str(bundle), [str(sounds[0])], str(tmp_path / "captions"))
    Output(collection.output).begin(caption_job(seed=1).record(collection))
    with pytest.raises(InputError, match=r"captions: was made with another seed; name another --output"):
        caption_collection.run(collection, seed=2)
    with pytest.raises(InputError, match=r"captions: was made with another job, seed; name another"):
        index_collection.run(collection)


def test_windows_of_long_files_have_captions_of_their_own(bundle: Path, tmp_path: Path) -> None:
    long = tmp_path / "sounds" / "long.wav"
    long.parent.mkdir()
    soundfile.write(long, 0.1 * np.random.default_rng(0).normal(size=7 * RATE), RATE)
    where = str(tmp_path / "captions")
    caption_collection.run(Collection(str(bundle), [str(long.parent)], where, actors(1), window_s=3, hop_s=2))
    rows = read(Output(where))
    (expected,) = Ensemble.load(bundle, "cpu").caption([long], window_s=3, hop_s=2)
    assert rows[["start_s", "end_s"]].values.tolist() == [[one.start_s, one.end_s] for one in expected.segments]
    assert rows["text"].tolist() == [one.caption.text for one in expected.segments]
    assert set(rows["duration_s"]) == {7.0}


def test_an_index_is_that_of_one_process_and_follows_the_files(
    bundle: Path, sounds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, folder = shutil.copytree(bundle, tmp_path / "bundle"), tmp_path / "sounds"
    collection = Collection(str(copy), [str(folder)], str(tmp_path / "embeddings"), actors(1))
    index_collection.run(collection)
    alone = Ensemble.load(bundle, "cpu")
    alone.index(sounds)
    assert found(Ensemble.load(copy, "cpu"), len(sounds)) == found(alone, len(sounds))
    # One file is gone, one is new, one has another sound: the rest is neither read nor added again.
    sounds[0].unlink()
    sounds[1].write_bytes(sounds[2].read_bytes())
    shutil.copy(sounds[3], folder / "new.wav")
    capsys.readouterr()
    index_collection.run(replace(collection))
    said = capsys.readouterr().err
    assert "2 files to do, 4 done already" in said
    assert "removed, as they are gone: 1 files" in said
    alone = Ensemble.load(bundle, "cpu")
    alone.index([*sounds[1:], folder / "new.wav"])
    assert found(Ensemble.load(copy, "cpu"), len(sounds)) == found(alone, len(sounds))
    # `enclap index` knows all of it, by size and time.
    index.run(copy, [folder])
    assert f"1 file to add, {len(sounds)} there already" in capsys.readouterr().err, "broken.wav alone"


def found(ensemble: Ensemble, number: int) -> dict[str, Any]:
    """Similarity by path, of all indexed files."""
    matches = ensemble.retrieve("a dog barks", number + 1)
    assert len(matches) == number
    return {match.path: pytest.approx(match.similarity, abs=1e-3) for match in matches}


def test_a_bucket_in_and_a_bucket_out(
    bundle: Path, sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path / "cache"))
    server = ObjectStore()
    try:
        store, base = fs.FileSystem.from_uri(server.uri(""))
        for name, source in (("sounds", tmp_path / "sounds"), ("bundle", bundle)):
            fs.copy_files(str(source), f"{base}/{name}", destination_filesystem=store)
        there = [server.uri("sounds")]
        caption_collection.run(Collection(server.uri("bundle"), there, server.uri("captions"), actors(2)))
        index_collection.run(Collection(server.uri("bundle"), there, server.uri("embeddings"), actors(2)))
        written = pq.read_table("bucket/captions/parts", filesystem=store).to_pandas().sort_values("path")
        expected = sorted(f"s3://bucket/sounds/{path.relative_to(tmp_path / 'sounds')}" for path in sounds)
        assert written["path"].tolist() == expected
        own = Ensemble.load(bundle, "cpu").caption(sorted(sounds))
        assert written["text"].tolist() == [one.text for one in own]
        with store.open_input_stream("bucket/captions/quarantine.csv") as file:
            assert b"s3://bucket/sounds/broken.wav" in file.read()
        monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path / "another machine"))
        fetched = Ensemble.load(storage.pull(storage.local_path(server.uri("bundle"))), "cpu")
        assert sorted(match.path for match in fetched.retrieve("a dog barks")) == expected
    finally:
        server.stop()


def test_nothing_to_read_is_said(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="no audio files found"):
        find_files([str(tmp_path / "empty")])
    with pytest.raises(AudioError, match="no audio files found"):
        Collection(str(bundle), [str(tmp_path / "empty")], str(tmp_path / "captions")).check()
    (tmp_path / "empty" / "x.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"none of 1 files could be read; .*quarantine.csv says why"):
        caption_collection.run(Collection(str(bundle), [str(tmp_path / "empty")], str(tmp_path / "captions")))


def test_workers_are_not_sent_all_files(bundle: Path, sounds: list[Path], tmp_path: Path) -> None:
    collection = Collection(str(bundle), [str(sounds[0].parent)], str(tmp_path / "captions"))
    collection.check()
    assert len(collection.files) == len(sounds) + 1
    sent = pickle.loads(pickle.dumps(collection))
    assert sent == collection
    assert "files" not in vars(sent)


def test_what_no_node_has_is_refused(bundle: Path, sounds: list[Path], tmp_path: Path) -> None:
    huge = ActorResources(cpus=1000)
    with pytest.raises(ConfigError, match=r"caption-collection \(--cpus, --gpus\) asks for 1000 CPU on one node"):
        caption_collection.run(Collection(str(bundle), [str(sounds[0])], str(tmp_path / "captions"), huge))


def test_an_output_holds_nothing_else(bundle: Path, sounds: list[Path], tmp_path: Path) -> None:
    for where in (bundle, sounds[0].parent):
        with pytest.raises(InputError, match="expected a new or empty directory; name another --output"):
            caption_collection.run(Collection(str(bundle), [str(sounds[0])], str(where)))
        assert not (where / "record.json").exists()


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"{}"])
def test_a_damaged_part_is_named(content: bytes, bundle: Path, sounds: list[Path], tmp_path: Path) -> None:
    collection = Collection(str(bundle), [str(sounds[0])], str(tmp_path / "captions"))
    Output(collection.output).begin(caption_job(None).record(collection))
    (tmp_path / "captions" / "parts").mkdir()
    (tmp_path / "captions" / "parts" / "part-1.parquet").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"part-1.parquet: damaged .*; remove it, and the same command"):
        caption_collection.run(collection)
    (tmp_path / "captions" / "record.json").write_text("{")
    with pytest.raises(InputError, match=r"record.json: not JSON"):
        caption_collection.run(collection)


def test_names_that_are_not_unicode_are_left_out(
    sounds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(sounds[0], tmp_path / "sounds" / os.fsdecode(b"x\xff.wav"))
    assert len(find_files([str(tmp_path / "sounds")])) == len(sounds) + 1
    assert "x\\udcff.wav: its name is not UTF-8; rename it" in capsys.readouterr().err


def test_parts_hold_what_is_not_done(tmp_path: Path) -> None:
    files = find_files([str(path) for path in write_sounds(tmp_path, 5)])
    parts = plan_parts(files, files.iloc[[1]], 2)
    assert [len(part.files) for part in parts] == [2, 2]
    assert [path for part in parts for path, _ in part.files] == files["path"].drop(1).tolist()
    assert [part.name for part in parts] == [part.name for part in plan_parts(files, files.iloc[[1]], 2)]
