"""serve: serve a bundle with Ray Serve: the app of `enclap serve-local` before replicas of the ensemble.

Example: enclap serve runs/demo/bundle --replicas 2
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI
from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
from ray.serve.handle import DeploymentHandle

from models.commands.serve_local import only_writer
from models.console import count, say
from models.ensemble import Ensemble
from models.ensemble.manifest import read_manifest
from models.errors import InputError
from models.service.app import create_app
from models.service.engine import Engine, load_members
from models.service.metrics import Metrics
from models.service.problems import Problem
from models.service.requests import CaptionSound, Request, answer_all
from models.service.schemas import About
from models.service.server import bind
from models.service.settings import ServiceSettings
from ray_jobs.run.entry import run_command
from ray_jobs.run.reach import cluster_address
from ray_jobs.run.session import connect, gpu_share, reserved_device

T = TypeVar("T")
APP = "enclap"
ANY_HOST = "RAY_SERVE_ENABLE_HA_PROXY"  # by which Ray Serve listens on all interfaces, whatever host is asked for
CANNOT_LISTEN = "Failed to bind"  # in Ray Serve's error
TRIES = 3  # replicas that a request is sent to, where one after the other dies while it answers
READY_S = 2.0  # that a replica has to say that it is loaded


@dataclass(frozen=True)
class Replicas:
    """How many copies of the ensemble there are, and how they compute."""

    number: int = 1
    gpus: float | None = None  # share of a GPU for each; 0.25 when left out, where the cluster has GPUs
    dtype: str | None = None
    int8: bool = False


class EnsembleReplica:
    """One copy of the ensemble, which answers the requests that Ray Serve sends it."""

    def __init__(self, bundle: Path, settings: ServiceSettings, replicas: Replicas) -> None:
        device = str(reserved_device())
        ensemble = Ensemble.load(bundle, device, dtype=replicas.dtype, int8=replicas.int8)
        load_members(ensemble)
        self._engine = Engine(ensemble, settings)
        self._hearing, self._others = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._caption.set_max_batch_size(settings.batch_size)
        self._caption.set_batch_wait_timeout_s(settings.batch_wait_s)

    async def loaded(self) -> bool:
        """Return that all members are."""
        return True

    async def ask(self, request: Request[T]) -> T:
        """Return the answer to a request."""
        if isinstance(request, CaptionSound):
            answer: Any = await self._caption(request)
            if isinstance(answer, Exception):
                raise answer
            return answer
        thread = self._hearing if request.hears else self._others
        (found,) = await self._answer(thread, [request])
        if isinstance(found, Exception):
            raise found
        answered: T = found
        return answered

    @serve.batch
    async def _caption(self, requests: list[CaptionSound]) -> Sequence[Any]:
        return await self._answer(self._hearing, requests)

    async def _answer(self, thread: Executor, requests: Sequence[Request[Any]]) -> Sequence[Any]:
        """Return the answers; who gives up while they are made, as when a request takes too long, ends the work."""
        given_up = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                thread, answer_all, self._engine, requests, lambda: not given_up.is_set()
            )
        except asyncio.CancelledError:
            given_up.set()
            raise


class ReplicaBackend:
    """Answers by replicas: Ray Serve chooses one; a request whose replica dies is sent to another."""

    def __init__(self, replicas: DeploymentHandle[EnsembleReplica]) -> None:
        self._replicas = replicas

    async def ask(self, request: Request[T]) -> T:
        """Return the answer to a request; see `models.service.backend.Backend`.

        Ray Serve sends no request twice by itself. All of them may be: they read, or write the same once more.
        """
        for _ in range(TRIES):
            asked = self._replicas.ask.remote(request)
            try:
                answer: T = await asked
                return answer
            except asyncio.CancelledError:
                asked.cancel()  # which Ray Serve does not do by itself for one that took too long
                raise
            except (ActorDiedError, ActorUnavailableError):
                continue
        raise Problem(503, "unavailable", f"{TRIES} replicas died while they answered", {"Retry-After": "5"})

    async def ready(self) -> bool:
        """Return whether a replica is loaded."""
        try:
            async with asyncio.timeout(READY_S):
                return bool(await self._replicas.loaded.remote())
        except (TimeoutError, RayError):
            return False

    async def close(self) -> None:
        """Leave it to Ray Serve, which lets replicas answer what they were asked."""


def run(bundle: Path, host: str, port: int, settings: ServiceSettings, replicas: Replicas) -> None:
    """Answer requests until SIGTERM or Ctrl-C, on a cluster or on this machine.

    Args:
        bundle: where every node of the cluster finds it.

    Raises:
        InputError: clients may change the index, of which several replicas would have a copy each; or Ray Serve is to
            listen for other machines, and there is no token; or the port is taken.
        CheckpointError: the bundle cannot be loaded.
    """
    if settings.write_index and replicas.number > 1:
        raise InputError(f"--write-index with --replicas {replicas.number}: each would have an index of its own; use 1")
    if not settings.token and os.environ.get(ANY_HOST) == "1":
        raise InputError(f"{ANY_HOST}=1: Ray Serve would listen for all machines, expected a token; unset it")
    with only_writer(bundle, settings.write_index):
        if not cluster_address():  # the proxies of a cluster listen on its nodes
            bind(host, port).close()
        connect()
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        start(host, port)
        try:
            serve.run(application(bundle, settings, replicas), name=APP)
            say(f"serve: http://{host}:{port}, {count(replicas.number, 'replica')}; Ctrl-C ends")
            ended.wait()
            drain(settings.timeout_s)
        finally:
            serve.shutdown()


def start(host: str, port: int) -> None:
    """Start Ray Serve, which listens on nodes of the cluster; where it cannot listen, nothing of it stays there.

    Raises:
        InputError: the port is taken on a node, or the host is none of its own.
    """
    try:
        serve.start(http_options={"host": host, "port": port})
    except RayError as error:
        serve.shutdown()
        if CANNOT_LISTEN not in str(error):
            raise
        raise InputError(
            f"--host {host} --port {port}: a node of the cluster cannot listen there (it is taken, or not the node's); "
            "choose another"
        ) from error


def drain(longest_s: float) -> None:
    """Let replicas answer what they were asked, and end; `serve.delete` itself waits for a minute, and then fails."""
    serve.delete(APP, _blocking=False)
    end = time.monotonic() + longest_s
    while (here := APP in serve.status().applications) and time.monotonic() < end:
        time.sleep(0.2)
    say(f"serve: requests are unanswered after {longest_s:g} s" if here else "serve: all requests are answered")


def application(bundle: Path, settings: ServiceSettings, replicas: Replicas) -> serve.Application:
    """Return the application: the app as ingress, and replicas behind it."""
    about, most = About.of(read_manifest(bundle), settings), settings.max_requests

    def build_app() -> FastAPI:
        """Build the app where it runs."""
        backend = ReplicaBackend(serve.get_deployment_handle("EnsembleReplica", APP))
        return create_app(backend, settings, about, Metrics())

    drain = {"graceful_shutdown_timeout_s": settings.timeout_s, "max_ongoing_requests": most}
    behind = serve.deployment(EnsembleReplica).options(
        num_replicas=replicas.number,
        ray_actor_options={"num_cpus": 1, "num_gpus": gpu_share(replicas.gpus)},
        max_queued_requests=-1,
        **drain,
    )
    # More than the app lets in, so that it is the app that refuses the others.
    front = serve.deployment(serve.ingress(build_app)()).options(
        name="App", ray_actor_options={"num_cpus": 0}, **drain | {"max_ongoing_requests": 2 * most}
    )
    return front.bind(behind.bind(bundle.resolve(), settings, replicas))


if __name__ == "__main__":
    run_command("serve")
