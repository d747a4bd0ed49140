"""The service on Ray Serve: it answers as the library does, and loses no request when a replica dies."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import ray
from ray.exceptions import ActorDiedError
from ray.util import list_named_actors
from serve import Service, killed, started

from models.commands.index import run as index_command
from models.ensemble import Ensemble
from models.errors import InputError
from models.service.problems import Problem
from models.service.requests import ListFiles
from models.service.settings import ServiceSettings
from ray_jobs import cli
from ray_jobs import serve as job
from ray_jobs.serve import TRIES, ReplicaBackend, Replicas, run
from tests.ray_jobs.conftest import free_port
from tests.small_bundle import write_bundle, write_sounds

WAV = {"Content-Type": "audio/wav"}
pytestmark = pytest.mark.timeout(1800)


class DyingReplicas:
    """Stands for the handle of replicas, the first of which die while they answer."""

    def __init__(self, dying: int) -> None:
        self.left, self.ask = dying, self

    async def remote(self, request: Any) -> Any:
        self.left -= 1
        if self.left >= 0:
            raise ActorDiedError
        return request


def test_a_request_whose_replica_dies_is_answered_by_another() -> None:
    request = ListFiles(0, 1)
    assert asyncio.run(ReplicaBackend(DyingReplicas(TRIES - 1)).ask(request)) == request
    with pytest.raises(Problem) as refused:
        asyncio.run(ReplicaBackend(DyingReplicas(TRIES)).ask(request))
    assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "5"})


def test_clients_do_not_change_one_of_several_copies_of_an_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use 1"):
        run(tmp_path, "127.0.0.1", 0, ServiceSettings(write_index=True), Replicas(2))


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_that_is_taken_is_refused_before_ray_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken_port: int
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(job, "connect", lambda: pytest.fail("Ray is started"))
    with pytest.raises(InputError, match=f"--port {taken_port}: cannot listen there .*; choose another"):
        run(write_bundle(tmp_path / "bundle"), "127.0.0.1", taken_port, ServiceSettings(), Replicas())


def test_nothing_stays_on_a_cluster_whose_nodes_cannot_listen(taken_port: int) -> None:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(InputError, match=f"--port {taken_port}: a node of the cluster cannot listen there"):
            job.start("127.0.0.1", taken_port)
        assert not list_named_actors(all_namespaces=True)
    finally:
        ray.shutdown()


def test_ctrl_c_before_it_is_started_ends_it_as_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "run", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", str(write_bundle(tmp_path / "bundle"))])
    assert ended.value.code == 0
    assert "resumes" not in capsys.readouterr().err


@dataclass(frozen=True)
class Use:
    """A service of two replicas, as the command starts it, and what it is asked."""

    service: Service
    sounds: list[Path]
    bundle: Path

    def post(self, path: str, **body: Any) -> httpx2.Response:
        return httpx2.post(f"http://{self.service.host}{path}", timeout=300, **body)

    def caption(self, sound: Path) -> httpx2.Response:
        return self.post("/v1/caption", content=sound.read_bytes(), headers=WAV)


@pytest.fixture(scope="module")
def use(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Use]:
    folder = tmp_path_factory.mktemp("serve").resolve()
    bundle, sounds = write_bundle(folder / "bundle"), write_sounds(folder / "sounds", 4)
    index_command(bundle, sounds)
    command = ["serve", str(bundle), "--replicas", "2", "--port", str(free_port())]
    with (folder / "log").open("wb") as log, started(command, log) as service:
        yield Use(service, sounds, bundle)


def test_it_answers_as_the_library_does(use: Use) -> None:
    ensemble = Ensemble.load(use.bundle, "cpu")
    expected = [caption.text for caption in ensemble.caption(use.sounds)]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(use.caption, use.sounds))
    assert [one.json()["caption"]["text"] for one in answers] == expected
    found = use.post("/v1/retrieve", json={"query": "rain"}).json()["files"]
    assert [one["name"] for one in found] == [one.path for one in ensemble.retrieve("rain")]
    assert httpx2.get(f"http://{use.service.host}/ready").json() == {"status": "ready"}


def test_what_replicas_refuse_is_refused(use: Use) -> None:
    blank = use.post("/v1/retrieve", json={"query": "  "})
    assert (blank.status_code, blank.json()["code"]) == (422, "invalid")
    unknown = httpx2.get(f"http://{use.service.host}/v1/index/{'0' * 32}/audio")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_file")
    silence = use.post("/v1/caption", content=b"no sound", headers=WAV)
    assert (silence.status_code, silence.json()["code"]) == (422, "unusable_audio")


def test_no_request_is_lost_when_a_replica_dies(use: Use) -> None:
    """Those that it was answering are answered by the other one; the benchmark's clients try nothing twice."""
    assert len(use.service.replicas()) == 2
    claims = killed(use.service, [sound.read_bytes() for sound in use.sounds] * 10, clients=16)
    assert (claims["killed"]["ours"], claims["killed"]["baseline"]) == (40, 40)


def test_sigterm_ends_it(use: Use) -> None:
    use.service.process.terminate()
    assert use.service.process.wait(400) == 0  # a replica that is just starting is waited for
