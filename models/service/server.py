"""Serve a bundle by uvicorn, in one process."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading

import uvicorn
from fastapi import FastAPI

from ..console import say
from ..ensemble.bundle import Ensemble
from ..errors import InputError
from .app import create_app
from .backend import LocalBackend
from .connections import uvicorn_config
from .engine import Engine
from .metrics import Metrics
from .schemas import About
from .settings import ServiceSettings

END_S = 1.0  # that an idle thread has to end


def local_app(ensemble: Ensemble, settings: ServiceSettings) -> FastAPI:
    """Return the app of a service that answers by an ensemble in this process."""
    metrics, engine = Metrics(), Engine(ensemble, settings)
    backend = LocalBackend(engine, settings, metrics)
    return create_app(backend, settings, About.of(ensemble.manifest, settings), metrics)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket for connections to a host and port, which does not listen yet; port 0 is a free one.

    Raises:
        InputError: the host is not this machine's, or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host} --port {port}: cannot listen there ({error}); choose another") from error
    return bound


def serve_app(app: FastAPI, bound: socket.socket, timeout_s: float) -> None:
    """Answer requests until SIGTERM or Ctrl-C; those that are being answered then are finished first.

    Args:
        timeout_s: longest wait for them, and for the head of a request.
    """
    server = uvicorn.Server(uvicorn_config(app, timeout_s))
    # uvicorn raises the signal that it drained for once more when all is done: the command then ended as it should.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    bound.listen()  # so that what is said next is true
    host, port = bound.getsockname()[:2]
    say(f"serve: http://{f'[{host}]' if ':' in host else host}:{port}; Ctrl-C ends")
    server.run([bound])
    if any(_computes(thread) for thread in threading.enumerate()):
        say(f"serve: requests are unanswered after {timeout_s:g} s")
        logging.shutdown()
        os._exit(0)  # the end of the interpreter would wait for the thread
    say("serve: all requests are answered")


def _computes(thread: threading.Thread) -> bool:
    """Return whether a thread, which was told to end, is still at work."""
    if thread is threading.main_thread() or thread.daemon:
        return False
    thread.join(END_S)
    return thread.is_alive()
