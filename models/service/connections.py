"""HTTP connections that end when a client takes too long to say what it asks."""

from __future__ import annotations

import asyncio
import math

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_BYTES = 64 * 2**10  # of a request's first line and headers; uvicorn's other parser, httptools, takes any number


class BoundedConnection(H11Protocol):
    """uvicorn's connection, closed where no whole request head arrives in time.

    uvicorn itself has a time for connections that are idle after an answer, and none for heads that are never ended.

    Attributes:
        head_s: time from a connection, or the first byte after an answer, to a whole request head.
    """

    head_s = 60.0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what arrives, and wait no longer once a head is whole."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # a request is being answered
            self._stop()
        elif self._late is None:  # and what arrives meanwhile gives no more time
            self._late = self.loop.call_later(self.head_s, self.transport.abort)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def uvicorn_config(app: FastAPI, timeout_s: float) -> uvicorn.Config:
    """Return uvicorn's settings: bounds on the size of heads, and on the time for them and for answers at the end."""
    return uvicorn.Config(
        app,
        http=type("Connection", (BoundedConnection,), {"head_s": timeout_s}),
        h11_max_incomplete_event_size=HEAD_BYTES,
        ws="none",
        log_level="warning",
        timeout_graceful_shutdown=math.ceil(timeout_s),
        server_header=False,
    )
