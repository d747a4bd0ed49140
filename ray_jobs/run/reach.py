"""Join a cluster within a minute, or say that it cannot be reached: Ray itself waits for a quarter of an hour."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from models.console import say
from ray_jobs.experiment.config import ConfigError

JOIN_S = 60.0
TRY_S = 5.0  # a connection
PAUSE_S = 1.0
AUTH_MODE = "RAY_AUTH_MODE"
WRONG_TOKEN = "InvalidAuthToken"  # in the cause of Ray's error
REMEDY = "start the cluster, correct RAY_ADDRESS, or unset it to use this machine"


def cluster_address() -> str | None:
    """Return the address of the cluster that RAY_ADDRESS names, None where this machine does the work."""
    address = os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


@contextmanager
def joining(address: str) -> Iterator[None]:
    """Let `ray.init` join a cluster, and end the process if that takes longer than `JOIN_S`.

    What answers there may be no Ray, or one that hangs; Ray's native code then hears neither exceptions nor signals,
    and nothing is begun yet that would have to be ended in order.

    Raises:
        ConfigError: nothing answers at the address, it is no address of a cluster, or the cluster refuses.
    """
    say(f"ray: joining the cluster at {address} (RAY_ADDRESS), for {JOIN_S:.0f} s at most")
    begun = time.monotonic()
    _check_answers(address, begun + JOIN_S)
    timer = threading.Timer(max(JOIN_S - (time.monotonic() - begun), TRY_S), _give_up, [address])
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        from ray.exceptions import AuthenticationError  # brings Ray, which `connect` imports once all is set

        if isinstance(error, ConnectionError | AuthenticationError):
            known = isinstance(error, AuthenticationError) or WRONG_TOKEN in str(error.__cause__)
            raise ConfigError(_refused(address, error, known)) from error
        raise
    finally:
        timer.cancel()


def _check_answers(address: str, deadline: float) -> None:
    """Return once something accepts connections at an address of host and port; other addresses Ray itself resolves."""
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"RAY_ADDRESS: found {address!r}, the address of a dashboard, which `ray job submit` takes; expected "
            "host:port of the cluster's head, or ray://host:port"
        )
    host, port = _host_and_port(address)
    if not host or not port:
        return
    while True:
        try:
            socket.create_connection((host, port), timeout=TRY_S).close()
        except OSError as error:
            if time.monotonic() + PAUSE_S > deadline or isinstance(error, socket.gaierror):
                raise ConfigError(f"RAY_ADDRESS: nothing answers at {address!r} ({error}); {REMEDY}") from error
            time.sleep(PAUSE_S)
        else:
            return


def _host_and_port(address: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        return parts.hostname, parts.port
    except ValueError as error:  # a port that is no number
        raise ConfigError(f"RAY_ADDRESS: found {address!r}, expected host:port ({error})") from error


def _refused(address: str, error: Exception, wants_token: bool) -> str:
    """Return what to say of a cluster that answers and cannot be joined."""
    why = "wants its token" if wants_token else f"cannot be joined ({error})"
    mode = os.environ.get(AUTH_MODE)
    token = (
        f"set {AUTH_MODE}=token (found {repr(mode) if mode else 'it unset'}) and put the cluster's token into "
        "~/.ray/auth_token, or the file that RAY_AUTH_TOKEN_PATH names"
    )
    remedy = token if wants_token else f"if it wants a token, {token}; else {REMEDY}"
    return f"RAY_ADDRESS: the cluster at {address!r} {why}; {remedy}"


def _give_up(address: str) -> None:
    print(f"error: RAY_ADDRESS: no cluster answers at {address!r} within {JOIN_S:.0f} s; {REMEDY}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(2)
