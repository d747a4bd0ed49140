"""What every request passes before the app sees it: token, origin, size, and a bound on how many there are at once."""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .problems import Problem
from .settings import ServiceSettings, is_local

GUARDED = ("/v1", "/metrics")  # all else is the page, and what load balancers ask
FORM_BYTES = 16 * 2**10  # of a form around its file
JSON_BYTES = 64 * 2**10
TAKE_SOUNDS = {f"/v1/{name}" for name in ("caption", "timeline", "similar", "index")}  # no other body is large
DISCONNECTED = 499  # in the metrics alone: a client that was gone before its body was there, as nginx counts it
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Guard:
    """ASGI middleware around the app of a service."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._inside, self._typical_s = 0, 1.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the app, or with the problem that it has."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        try:
            if _is_guarded(scope["path"]):
                await self._enter(scope, receive, respond)
            else:
                await self._app(scope, receive, respond)
        except ClientDisconnect:  # nobody is left to answer
            status = DISCONNECTED
        finally:
            labels = scope["method"], getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(*labels, status).inc()
            self._metrics.seconds.labels(*labels).observe(time.perf_counter() - started)

    async def _enter(self, scope: Scope, receive: Receive, respond: Send) -> None:
        try:
            self._check(scope)
        except Problem as problem:
            await problem.response()(scope, receive, respond)
            return
        started = time.perf_counter()
        self._inside += 1
        self._metrics.in_progress.set(self._inside)
        try:
            await self._app(scope, _bounded(receive, self._most_bytes(scope), self._settings.timeout_s), respond)
        finally:
            self._inside -= 1
            self._metrics.in_progress.set(self._inside)
            self._typical_s += 0.1 * (time.perf_counter() - started - self._typical_s)

    def _check(self, scope: Scope) -> None:
        """Refuse a request by what is known before its body arrives.

        Raises:
            Problem: 400, 401, 403, 413, 429.
        """
        headers, most = Headers(scope=scope), self._most_bytes(scope)
        token, host = self._settings.token, headers.get("host", "")
        if token and not _has_token(headers, token.get_secret_value()):
            told = {"WWW-Authenticate": "Bearer"}
            raise Problem(401, "unauthorized", "expected the header `Authorization: Bearer TOKEN`", told)
        # A page of another site, in the browser of a user of this machine; its host's name may lead to this machine.
        origin = headers.get("origin")
        if origin and _split(origin).netloc != host:
            raise Problem(403, "cross_origin", f"pages of {origin} may not use this service")
        if not token and not is_local(_split(f"//{host}").hostname or ""):
            raise Problem(403, "unknown_host", f"Host: found {host!r}, expected localhost, as there is no token")
        stated = headers.get("content-length", "0")
        if not stated.isdecimal():
            raise Problem(400, "invalid", f"Content-Length: found {stated!r}, expected a number of bytes")
        if int(stated) > most:
            raise _too_large(most)
        if self._inside >= self._settings.max_requests:
            told = {"Retry-After": str(math.ceil(self._typical_s))}
            raise Problem(429, "busy", f"{self._inside} requests are being answered; try again later", told)

    def _most_bytes(self, scope: Scope) -> int:
        media_type = Headers(scope=scope).get("content-type", "")
        if scope["path"] not in TAKE_SOUNDS:
            return JSON_BYTES
        form = media_type.lower().startswith("multipart/")
        return self._settings.max_upload_bytes + (FORM_BYTES if form else 0)


def _is_guarded(path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in GUARDED)


def _split(url: str) -> SplitResult:
    """Return the parts of a URL, empty where it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _has_token(headers: Headers, token: str) -> bool:
    scheme, _, sent = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(sent.strip().encode(), token.encode())


def _too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"the body has more than {most / 2**20:.4g} MiB; send less, or a compressed file")


def _bounded(receive: Receive, most: int, longest_s: float) -> Receive:
    """Return `receive` that refuses a body that has more bytes than it may, whatever its header said, or comes late."""
    found, whole, end = 0, False, asyncio.get_running_loop().time() + longest_s

    async def bounded() -> Message:
        nonlocal found, whole
        try:
            async with asyncio.timeout_at(None if whole else end):
                message = await receive()
        except TimeoutError:
            late = f"the body did not arrive within {longest_s:g} s"
            raise Problem(408, "body_timeout", late, {"Connection": "close"}) from None
        whole = not message.get("more_body", False)
        found += len(message.get("body", b""))
        if found > most:
            raise _too_large(most)
        return message

    return bounded
