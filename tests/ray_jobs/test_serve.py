"""The service on Ray Serve: it answers as the library does, and loses no request when a replica dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from ray.exceptions import ActorDiedError

from models.commands.index import run as index_command
from models.ensemble import Ensemble
from models.errors import InputError
from models.service.problems import Problem
from models.service.requests import ListFiles
from models.service.settings import TOKEN, ServiceSettings
from ray_jobs import serve
from tests.ray_jobs.conftest import free_port
from tests.small_bundle import write_bundle, write_sounds

WAV = {"Content-Type": "audio/wav"}


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
    assert asyncio.run(serve.ReplicaBackend(DyingReplicas(serve.TRIES - 1)).ask(request)) == request  # type: ignore[arg-type]
    with pytest.raises(Problem) as refused:
        asyncio.run(serve.ReplicaBackend(DyingReplicas(serve.TRIES)).ask(request))  # type: ignore[arg-type]
    assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "5"})


def test_clients_do_not_change_one_of_several_copies_of_an_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use 1 replica"):
        serve.run(tmp_path, "127.0.0.1", 0, ServiceSettings(write_index=True), 2, None)


@dataclass(frozen=True)
class Service:
    """A service of two replicas, as the command starts it."""

    process: subprocess.Popen[str]
    client: httpx2.Client
    sounds: list[Path]
    bundle: Path

    def caption(self, sound: Path) -> httpx2.Response:
        return self.client.post("/v1/caption", content=sound.read_bytes(), headers=WAV)

    def replicas(self) -> list[psutil.Process]:
        """Return the processes of the ensemble's replicas, which Ray starts as children of this machine's node."""
        name = "ServeReplica:enclap:EnsembleReplica"
        return [one for one in psutil.process_iter(["cmdline", "environ"]) if self._is_one(one, name)]

    def _is_one(self, process: psutil.Process, name: str) -> bool:
        ours = (process.info["environ"] or {}).get("ENCLAP_TEST_SERVE") == str(self.bundle)
        return ours and name in " ".join(process.info["cmdline"] or [])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("serve").resolve()
    bundle, sounds, port = write_bundle(folder / "bundle"), write_sounds(folder / "sounds", 4), free_port()
    index_command(bundle, sounds)
    command = [sys.executable, "-m", "ray_jobs.serve", str(bundle), "--replicas", "2", "--port", str(port)]
    environment = {**os.environ, "ENCLAP_TEST_SERVE": str(bundle)}
    environment.pop("RAY_ADDRESS", None)
    environment.pop(TOKEN, None)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment)
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, limits=httpx2.Limits(max_connections=64))
    try:
        while "Ctrl-C ends" not in (folder / "log").read_text():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.5)
        yield Service(process, client, sounds, bundle)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def test_it_answers_as_the_library_does(service: Service) -> None:
    ensemble = Ensemble.load(service.bundle, "cpu")
    expected = [caption.text for caption in ensemble.caption(service.sounds)]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(service.caption, service.sounds))
    assert [one.json()["caption"]["text"] for one in answers] == expected
    found = service.client.post("/v1/retrieve", json={"query": "rain"}).json()["files"]
    assert [one["name"] for one in found] == [one[0] for one in ensemble.retrieve("rain")]
    assert service.client.get("/ready").json() == {"status": "ready"}


def test_what_replicas_refuse_is_refused(service: Service) -> None:
    blank = service.client.post("/v1/retrieve", json={"query": "  "})
    assert (blank.status_code, blank.json()["code"]) == (422, "invalid")
    unknown = service.client.get(f"/v1/index/{'0' * 32}/audio")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_file")
    silence = service.client.post("/v1/caption", content=b"no sound", headers=WAV)
    assert (silence.status_code, silence.json()["code"]) == (422, "unusable_audio")


def test_no_request_is_lost_when_a_replica_dies(service: Service) -> None:
    """Those that it was answering are answered by the other one; Ray Serve starts it anew."""
    sounds = service.sounds * 10
    with ThreadPoolExecutor(16) as pool:
        first, *others = [pool.submit(service.caption, sound) for sound in sounds]
        first.result()
        killed, _ = service.replicas()
        killed.kill()
        answers = [one.result() for one in (first, *others)]
    assert [one.status_code for one in answers] == [200] * len(sounds)


def test_sigterm_ends_it(service: Service) -> None:
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(120) == 0
