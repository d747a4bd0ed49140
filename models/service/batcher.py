"""Answer concurrent requests in batches, on a thread of their own.

Of the libraries that batch for asyncio, `batched` 0.1.5 mixes up answers, and `async-batcher` 0.2.2 loses those of a
whole batch, once a request in it has been given up, as a timeout does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

from .metrics import Metrics


class Batchable(Protocol):
    """A request; those with an equal key may be answered together."""

    @property
    def together(self) -> Hashable:
        """Return the key."""


class Batcher:
    """One thread that answers requests in turn: whatever waits when it becomes free, and may be answered together."""

    def __init__(
        self,
        name: str,
        answer: Callable[[Sequence[Any], Callable[[], bool]], Sequence[Any]],
        metrics: Metrics,
        size: int = 1,
        wait_s: float = 0.0,
    ) -> None:
        """Take what answers requests.

        Args:
            answer: returns one answer for each of some requests, or the exception that it failed with; it may ask
                whether any of them is still wanted, and end where none is.
            size: most requests of a batch.
            wait_s: that a batch which is not full waits for more: clients that were just answered may ask again.
        """
        self._answer, self._size, self._wait_s = answer, size, wait_s
        self._depth, self._sizes = metrics.queue.labels(name), metrics.batch.labels(name)
        self._waiting: deque[tuple[Batchable, asyncio.Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._work: asyncio.Task[None] | None = None

    async def ask(self, request: Batchable) -> Any:
        """Return the answer to a request, or raise what it failed with; who gives up while it waits costs nothing."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        self._depth.set(len(self._waiting))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run())
        return await future

    async def close(self, longest_s: float) -> None:
        """Answer what waits, for some seconds at most, and end the thread once it has done what it is at."""
        if self._work:
            await asyncio.wait([self._work], timeout=longest_s)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if self._wait_s and len(self._waiting) < self._size:
                await asyncio.sleep(self._wait_s)
            batch = self._next_batch()
            if not batch:
                continue
            self._sizes.observe(len(batch))
            requests = [request for request, _ in batch]
            wanted = partial(_any_waits, [future for _, future in batch])
            try:
                answers = await loop.run_in_executor(self._thread, self._answer, requests, wanted)
            except Exception as error:
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():  # given up meanwhile
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _next_batch(self) -> list[tuple[Batchable, asyncio.Future[Any]]]:
        """Take the first request that is still wanted, and those behind it that may be answered together with it."""
        wanted = [one for one in self._waiting if not one[1].done()]
        batch = [one for one in wanted if one[0].together == wanted[0][0].together][: self._size]
        taken = {id(future) for _, future in batch}
        self._waiting = deque(one for one in wanted if id(one[1]) not in taken)
        self._depth.set(len(self._waiting))
        return batch


def _any_waits(futures: Sequence[asyncio.Future[Any]]) -> bool:
    return not all(future.done() for future in futures)
