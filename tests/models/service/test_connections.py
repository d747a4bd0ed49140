"""Connections of clients that never say what they ask."""

from __future__ import annotations

import itertools
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from logging.handlers import BufferingHandler
from urllib.parse import urlsplit

import httpx2
import pytest

from models.service.connections import HEAD_BYTES

from .conftest import HeldBackend, app_of
from .served import Served

pytestmark = pytest.mark.timeout(120)  # a connection that is not closed is read for ever
HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


@contextmanager
def connected(timeout_s: float) -> Iterator[tuple[socket.socket, str]]:
    """Connect to a service whose clients have some seconds for a head."""
    with Served(app_of(HeldBackend()), timeout_s) as url:
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            yield connection, url


def sent_until_closed(connection: socket.socket, piece: bytes, wait_s: float = 0.0) -> int:
    """Send a piece over and over, and return how often, until the service closes the connection."""
    for number in itertools.count():
        try:
            connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return number
        time.sleep(wait_s)
    raise AssertionError


@pytest.mark.parametrize("begin", [HEAD + b"X: ", b"GET /health?"])
def test_a_head_has_a_size(begin: bytes) -> None:
    with connected(60) as (connection, url):
        connection.sendall(begin)
        assert sent_until_closed(connection, bytes([97]) * HEAD_BYTES) < 1000  # what the kernel holds, too
        assert httpx2.get(f"{url}health").status_code == 200


@pytest.mark.parametrize("begin", [b"", HEAD])
def test_a_head_that_does_not_come_ends_the_connection(begin: bytes) -> None:
    with connected(0.2) as (connection, _):
        connection.sendall(begin)
        assert connection.recv(1) == b""


def test_a_head_that_comes_byte_by_byte_has_no_more_time() -> None:
    with connected(0.2) as (connection, _):
        connection.sendall(HEAD + b"X: ")
        sent_until_closed(connection, b"a", 0.02)


def test_a_second_head_has_a_time_too() -> None:
    with connected(0.2) as (connection, _):
        connection.sendall(HEAD + b"\r\n")
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200")
        connection.sendall(HEAD + b"X: ")
        sent_until_closed(connection, b"a", 0.02)


def test_an_answer_may_take_longer_than_a_head() -> None:
    held = HeldBackend(answer=[])
    with Served(app_of(held), 0.2) as url, ThreadPoolExecutor() as pool:
        asked = pool.submit(httpx2.post, f"{url}v1/retrieve", json={"query": "rain"}, timeout=60)
        held.asked.acquire()
        time.sleep(0.5)
        held.go.set()
        assert asked.result().status_code == 200


def test_a_client_that_goes_while_it_sends_is_no_error_of_the_service() -> None:
    """It is counted, and the log has no traceback of it."""
    logged = BufferingHandler(1000)
    logging.getLogger("uvicorn.error").addHandler(logged)
    try:
        with connected(60) as (connection, url):
            lines = (
                "POST /v1/caption HTTP/1.1",
                "Host: localhost",
                f"Content-Type: multipart/form-data; boundary={'a' * 9}",
            )
            connection.sendall("\r\n".join((*lines, "Content-Length: 100", "", "--aaa")).encode())
            connection.shutdown(socket.SHUT_RDWR)
            while 'status="499"' not in httpx2.get(f"{url}metrics").text:
                time.sleep(0.05)
    finally:
        logging.getLogger("uvicorn.error").removeHandler(logged)
    assert [record.getMessage() for record in logged.buffer if record.exc_info] == []
