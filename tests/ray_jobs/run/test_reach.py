"""A cluster that cannot be reached is told of at once, and not waited for without end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.exceptions import AuthenticationError

from ray_jobs.experiment.config import ConfigError
from ray_jobs.run import reach
from ray_jobs.run.reach import joining

ROOT = Path(__file__).parents[3]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def test_where_nothing_answers_it_is_said_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], listener: socket.socket
) -> None:
    monkeypatch.setattr(reach, "JOIN_S", 1.5)
    port = listener.getsockname()[1]
    listener.close()
    with (
        pytest.raises(ConfigError, match=rf"nothing answers at '127.0.0.1:{port}'.*unset it"),
        joining(f"127.0.0.1:{port}"),
    ):
        pytest.fail("nobody is there")
    assert f"joining the cluster at 127.0.0.1:{port} (RAY_ADDRESS)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "the address of a dashboard"),
        ("head:65x", "expected host:port"),
        ("ray://no-such-host.invalid:10001", "nothing answers"),
    ],
)
def test_what_is_no_address_of_a_cluster_is_refused_at_once(address: str, message: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=message), joining(address):
        pytest.fail("nobody is there")
    assert time.monotonic() - begun < reach.JOIN_S / 2


@pytest.mark.parametrize("address", ["auto", "local", "ray://127.0.0.1:{}", "127.0.0.1:{}", "localhost:{}"])
def test_what_answers_is_left_to_ray(address: str, listener: socket.socket) -> None:
    with joining(address.format(listener.getsockname()[1])):
        pass


@pytest.mark.parametrize(
    ("error", "cause", "message"),
    [
        (AuthenticationError("no authentication token was found"), None, "wants its token; set RAY_AUTH_MODE=token"),
        (ConnectionError("Failed"), RuntimeError("InvalidAuthToken: ..."), "wants its token; set RAY_AUTH_MODE=token"),
        (ConnectionError("Failed"), RuntimeError("timeout"), "(Failed); if it wants a token, set RAY_AUTH_MODE=token"),
    ],
)
@pytest.mark.parametrize(("mode", "found"), [("", "found it unset"), ("token", "found 'token'")])
def test_a_cluster_that_refuses_is_told_with_where_its_token_belongs(
    error: Exception,
    cause: Exception | None,
    message: str,
    mode: str,
    found: str,
    listener: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ConfigError) as refused, joining(address):
        raise error from cause
    said = str(refused.value)
    assert said.startswith(f"RAY_ADDRESS: the cluster at {address!r} ")
    for part in (message, found, "~/.ray/auth_token", "RAY_AUTH_TOKEN_PATH"):
        assert part in said


def test_what_answers_and_is_no_ray_is_given_up(listener: socket.socket) -> None:
    """With Ray itself, in a process of its own, since it ends that."""
    code = "from ray_jobs.run import reach, session\nreach.JOIN_S = reach.TRY_S = 3.0\nsession.connect()\n"
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    environment = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 2
    assert f"no cluster answers at {address!r} within 3 s" in ended.stderr


def test_a_temporary_directory_with_a_long_path_is_told_with_what_to_set(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    ended = subprocess.run(
        [sys.executable, "-c", "from ray_jobs.run import session; session.connect()"],
        env=environment | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert f"ConfigError: the temporary directory {folder} has too long a path" in ended.stderr
    assert "set RAY_TMPDIR to a shorter one" in ended.stderr
