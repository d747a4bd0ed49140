"""Runs in an object store, against a real S3 server on this machine: two caches stand for the disks of two nodes."""

import json
import os
import pickle
import socket
import threading
from pathlib import Path

import pandas as pd
import pytest
import yaml

from corpora.soundscapes.render import write_captions, write_clip
from corpora.soundscapes.sampling import sample_scenes
from ray_jobs import cli
from ray_jobs.experiment.config import ConfigError
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.run import storage, store_lease
from ray_jobs.run.directory import NotReadyError, RunDirectory, is_done, mark_done, require
from ray_jobs.run.lock import RunBusyError, only_writer, read_owner
from ray_jobs.status import read_status

from ..conftest import ROOT, RayCluster
from ..object_store import CREDENTIALS, ObjectStore


@pytest.fixture(scope="module")
def server() -> ObjectStore:
    return ObjectStore()


@pytest.fixture
def store(server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage_path of this test alone; the working copy is that of the driver until `on` says otherwise."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    on("driver", tmp_path, monkeypatch)
    return server.uri(tmp_path.name)


def on(node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path / node))


def smoke(storage_path: str) -> RunDirectory:
    return RunDirectory(load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={storage_path}"]))


def test_what_one_node_pushes_another_pulls(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = smoke(store).member("fluency")
    contents = {"model.safetensors": bytes(range(256)) * 9000, "text_encoder/config.json": b"{}", ".partial": b"half"}
    for name, content in contents.items():
        (member / name).parent.mkdir(parents=True, exist_ok=True)
        (member / name).write_bytes(content)
    storage.push(member)

    on("worker", tmp_path, monkeypatch)
    pulled = storage.pull(member)  # the driver's path
    assert pulled == smoke(store).member("fluency") == storage.here(member)
    assert pulled.is_relative_to(tmp_path / "worker")
    found = {str(path.relative_to(pulled)): path.read_bytes() for path in pulled.rglob("*") if path.is_file()}
    assert found == {name: content for name, content in contents.items() if name != ".partial"}

    # What is here is not fetched again; what is new is, though its size is the same; what is gone goes.
    before = {name: (pulled / name).stat().st_ino for name in found}
    (pulled / "of other settings").touch()
    on("driver", tmp_path, monkeypatch)
    (member / "text_encoder" / "config.json").write_bytes(b"[]")
    os.utime(member / "text_encoder" / "config.json", (2e9, 2e9 + 0.5))
    storage.push(member)
    on("worker", tmp_path, monkeypatch)
    os.utime(pulled / "text_encoder" / "config.json", (1e9, 1e9))  # the store's clock may not have moved a second
    storage.pull(member)
    assert (pulled / "model.safetensors").stat().st_ino == before["model.safetensors"]
    assert (pulled / "text_encoder" / "config.json").read_bytes() == b"[]"
    assert not (pulled / "of other settings").exists()

    storage.remove(member)
    assert not storage.exists(member)
    with pytest.raises(FileNotFoundError, match="members/fluency"):
        storage.pull(member)


def test_done_is_what_the_store_says(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = smoke(store)
    features = directory.features("soundscapes")
    (features / "train").mkdir(parents=True)
    (features / "train" / "00000.arrow").write_bytes(b"clips")
    storage.push(features)
    on("worker", tmp_path, monkeypatch)
    assert not is_done(features, "these")
    with pytest.raises(NotReadyError, match=r"s3://bucket/.*/features/soundscapes.* does not exist yet"):
        require(features, "these", "prepare", "smoke")
    on("driver", tmp_path, monkeypatch)
    mark_done(features, "these")
    on("worker", tmp_path, monkeypatch)
    assert is_done(storage.here(features), "these")
    assert not is_done(storage.here(features), "others")
    assert not storage.here(features).exists(), "nothing was copied to find it out"
    assert storage.listing(features / "train", "*.arrow") == [features / "train" / "00000.arrow"]
    assert storage.source(features / "train" / "00000.arrow").read() == b"clips"


def test_a_directory_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "open_uri", lambda path: pytest.fail("no store is asked"))
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path / "cache"))
    directory = smoke(str(tmp_path / "runs"))
    member = directory.member("fluency")
    assert member == tmp_path / "runs" / "smoke" / "members" / "fluency"
    assert storage.pull(member) == storage.here(member) == storage.source(member) == member
    mark_done(member, "these")
    storage.push(member)
    assert is_done(member, "these")
    assert storage.uri(member) == str(member)
    assert storage.for_ray(member) == {"storage_path": str(member)}
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "path",
    [
        "s3://AKIA1:sesame@bucket/runs",
        "s3://sesame@bucket/runs",
        "s3://bucket/runs?secret_key=sesame",
        "s3://bucket/runs?session_token=sesame&region=eu-central-1",
        "abfss://container:sesame@account.dfs.core.windows.net/runs",
    ],
)
def test_a_secret_in_the_uri_is_refused(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on("driver", tmp_path, monkeypatch)
    with pytest.raises(SystemExit) as error:
        cli.main(["train", str(ROOT / "experiments" / "smoke.yaml"), f"storage_path={path}"])
    assert error.value.code == 2
    said = capsys.readouterr()
    assert "storage_path" in said.err
    assert "holds a secret" in said.err
    assert "sesame" not in said.err + said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["nowhere://bucket/runs", "s3:///runs", "s3://", "gs:///", f"s3://bucket/{'x' * 250}"])
def test_what_is_no_store_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="storage_path: found"):
        smoke(path)


def test_a_store_that_comes_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the file system that Ray sends to its workers, too."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    threading.Timer(5.0, ObjectStore, [port]).start()  # pyarrow alone gives up within three seconds
    path = f"s3://bucket/runs?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    at = storage.for_ray(storage.working_copy(path, "smoke"))
    sent = pickle.loads(pickle.dumps(at["storage_filesystem"]))
    assert not sent.get_file_info("bucket/runs/smoke").is_file


# --- the lock ------------------------------------------------------------------------------------------------------


def test_a_second_node_is_refused(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = smoke(store).root
    monkeypatch.setattr(store_lease, "SETTLE_S", 0.2)
    with only_writer(root, lease_s=60.0):
        on("worker", tmp_path, monkeypatch)
        owner = read_owner(storage.here(root))
        assert owner is not None
        assert owner.pid == os.getpid()
        refused = pytest.raises(RunBusyError, match=r"s3://bucket/.*/smoke.* is being written by .*process")
        with refused, only_writer(storage.here(root), lease_s=60.0):
            pytest.fail("two writers")
        on("driver", tmp_path, monkeypatch)
    assert read_owner(root) is None
    with only_writer(root, lease_s=60.0):
        pass


def test_a_silent_owner_is_replaced_and_then_stops(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = smoke(store).root
    monkeypatch.setattr(store_lease, "SETTLE_S", 0.2)
    lost = threading.Event()
    owner = {"host": "elsewhere", "pid": 1, "job": None, "command": "enclap train", "started": 0.0}
    with store_lease.held(root, owner, 4.0, lost.set):
        monkeypatch.setattr(store_lease, "age_s", lambda root: 1e6)  # clocks that do not agree: the beat is seen
        with pytest.raises(store_lease.StoreBusyError), store_lease.held(root, owner, 4.0, lambda: None):
            pytest.fail("two writers")
        assert not lost.is_set()
        storage.remove(root / store_lease.LOCK)
        with store_lease.held(root, owner, 4.0, lambda: None):
            assert lost.wait(10)
        assert not storage.exists(root / store_lease.LOCK)


def test_status_by_uri(store: str) -> None:
    directory = smoke(store)
    directory.write_experiment()
    status = read_status(storage.uri(directory.root))
    assert {member.state for member in status.members} == {"waiting"}
    assert status.owner is None
    with pytest.raises(ConfigError, match=r"s3://bucket/.*/nothing/experiment.yaml.*no such file"):
        read_status(storage.uri(directory.root.with_name("nothing")))


# --- a run ---------------------------------------------------------------------------------------------------------

RUN = """
import os, sys
from ray_jobs import prepare, train
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.run.directory import RunDirectory
from ray_jobs.run.lock import only_writer
from ray_jobs.run.session import connect

experiment = load_experiment(sys.argv[1])
directory = RunDirectory(experiment)
with only_writer(directory.root):
    directory.write_experiment()
    connect()
    prepare.run(experiment)
    train.run(experiment)
"""


@pytest.mark.ci
@pytest.mark.slow
def test_a_run_whose_nodes_share_no_disk(
    cluster: RayCluster, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the workers prepare and train, the driver finds in the store, and a third node can read all of it."""
    raw = yaml.safe_load((ROOT / "experiments" / "smoke.yaml").read_text(encoding="utf-8"))
    raw |= {"members": {"retriever-bge": raw["members"]["retriever-bge"]}, "storage_path": store}
    raw["members"]["retriever-bge"]["training"] |= {"epochs": 1, "batch_size": 8}
    raw["corpora"]["soundscapes"] = {"kind": "folder", "root": str(tmp_path), "splits": ["train", "validation"]}
    raw |= {"prepare": {"workers": 1}}
    for split, scenes in sample_scenes({"train": 8, "validation": 4}, seed=0).items():
        for scene in scenes:
            write_clip(scene, tmp_path, 16_000)
        write_captions(tmp_path, split, scenes)
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    done = cluster.submit(
        "env",
        f"ENCLAP_CACHE={tmp_path / 'driver'}",
        "python",
        "-c",
        RUN,
        str(tmp_path / "one.yaml"),
        timeout_s=300,
        environment=CREDENTIALS | {"ENCLAP_CACHE": str(tmp_path / "worker")},
    )
    assert done.returncode == 0, done.stdout[-4000:]

    on("third", tmp_path, monkeypatch)
    root = smoke(store).root
    status = read_status(storage.uri(root))
    assert [part.state for part in status.corpora] == ["done"]
    assert [member.state for member in status.members] == ["done"]
    member = storage.pull(root / "members" / "retriever-bge")
    assert len(pd.read_parquet(member / "history.parquet")) == 1
    events = [json.loads(line)["event"] for line in (member / "log.jsonl").read_text().splitlines()]
    assert events == ["started", "epoch", "finished"]
    assert not storage.exists(root / "checkpoints" / "retriever-bge"), "the member's directory holds the result"
    assert not storage.exists(root / store_lease.LOCK)

    def weights(node: str) -> list[Path]:
        return list((tmp_path / node).rglob("*.safetensors")) + list((tmp_path / node).rglob("00000.arrow"))

    assert not weights("driver"), "the driver has no use for them"
    assert len(weights("worker")) == 4, "the model, the shards of two splits, the embeddings of validation"
