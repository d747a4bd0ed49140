"""What the app asks for answers, and the one that answers in the app's own process."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol, TypeVar

from .batcher import Batcher
from .engine import Engine
from .metrics import Metrics
from .requests import Request, answer_all
from .settings import ServiceSettings

T = TypeVar("T")
CLOSE_S = 2.0  # that a thread has at the end, when nobody waits for its answer any more


class Backend(Protocol):
    """Answers requests; `LocalBackend` in this process, Ray Serve's in others."""

    async def ask(self, request: Request[T]) -> T:
        """Return the answer to a request.

        Raises:
            InputError: the request cannot be answered.
        """

    async def ready(self) -> bool:
        """Return whether requests would be answered now."""

    async def close(self) -> None:
        """End, when all that was asked is answered or given up."""


class LocalBackend:
    """Answers by an engine on two threads: one hears sounds, in batches; the other answers all else meanwhile."""

    def __init__(self, engine: Engine, settings: ServiceSettings, metrics: Metrics) -> None:
        answer = partial(answer_all, engine)
        self._of_sounds = Batcher("sounds", answer, metrics, settings.batch_size, settings.batch_wait_s)
        self._others = Batcher("others", answer, metrics)

    async def ask(self, request: Request[T]) -> T:
        """Return the answer to a request; see `Backend`."""
        answer: T = await (self._of_sounds if request.hears else self._others).ask(request)
        return answer

    async def ready(self) -> bool:
        """Return that it is: its engine was loaded before."""
        return True

    async def close(self) -> None:
        """End the threads, or leave them alone if they take too long."""
        await asyncio.gather(self._of_sounds.close(CLOSE_S), self._others.close(CLOSE_S))
