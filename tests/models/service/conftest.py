"""Services with a small bundle, and with a backend that a test holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from models.ensemble import Ensemble
from models.service.app import create_app
from models.service.metrics import Metrics
from models.service.requests import Request
from models.service.schemas import About
from models.service.server import local_app
from models.service.settings import ServiceSettings
from tests.small_bundle import write_bundle, write_sounds

MakeClient = Callable[..., TestClient]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_sounds(tmp_path_factory.mktemp("sounds").resolve(), 4)


@pytest.fixture
def ensemble(bundle: Path) -> Ensemble:
    return Ensemble.load(bundle, "cpu")


@pytest.fixture
def client(ensemble: Ensemble) -> Iterator[MakeClient]:
    """Return a function that makes a client of a service with some settings, by default of `ensemble`."""
    opened = []

    def make(app: FastAPI | None = None, **settings: Any) -> TestClient:
        made = app or local_app(ensemble, ServiceSettings(**settings))
        opened.append(TestClient(made, base_url="http://localhost", raise_server_exceptions=False))
        return opened[-1].__enter__()

    yield make
    for one in opened:
        one.__exit__()


class HeldBackend:
    """Answers with one answer, or fails with it, once it is let go."""

    def __init__(self, answer: Any = None) -> None:
        self.answer, self.asked, self.go = answer, threading.Semaphore(0), threading.Event()

    async def ask(self, request: Request[Any]) -> Any:
        self.asked.release()
        while not self.go.is_set():
            await asyncio.sleep(0.001)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def ready(self) -> bool:
        return self.go.is_set()

    async def close(self) -> None:
        """Nothing is open."""


def app_of(backend: HeldBackend, **settings: Any) -> FastAPI:
    known = ServiceSettings(**settings)
    names = {"version": "0", "captioners": [], "retrievers": []}
    about = About(**names, max_upload_bytes=1, max_duration_s=1, heard_s=1, share_audio=False, write_index=False)
    return create_app(backend, known, about, Metrics())


@pytest.fixture
def indexed_client(client: MakeClient, ensemble: Ensemble, sounds: list[Path]) -> MakeClient:
    """`client`, with an index that is not empty."""
    ensemble.index(sounds[:1])
    return client
