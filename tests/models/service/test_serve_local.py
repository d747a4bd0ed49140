"""The command `enclap serve-local`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import httpx2
import pytest
from filelock import FileLock

from models.commands import serve_local
from models.commands.cli import app
from models.commands.index import LOCK
from models.commands.running import run_app
from models.service.settings import TOKEN

WAV = {"Content-Type": "audio/wav"}
SECRET = "a-token-of-some-length"


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what the command says when its input cannot be used."""
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["serve-local", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def service(bundle: Path) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        "-m",
        "ray_jobs.cli",
        "serve-local",
        str(bundle),
        "--port",
        "0",
        "--limit",
        "batch_wait_s=3",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, TOKEN: SECRET})
    yield process
    process.kill()
    process.wait()


def address(said: IO[str]) -> str:
    """Return the address that the command says."""
    line = next(line for line in said if "http://" in line)
    return "http://" + line.split("http://")[1].split(";")[0]


def test_sigterm_lets_requests_finish(service: subprocess.Popen[str], sounds: list[Path]) -> None:
    """Requests that are inside get their captions; nobody else is let in; the command ends as it should."""
    assert service.stderr
    url, header = address(service.stderr), {"Authorization": f"Bearer {SECRET}"}
    with ThreadPoolExecutor() as pool, httpx2.Client(base_url=url, timeout=60, headers=header) as client:
        posts = [pool.submit(client.post, "/v1/caption", content=path.read_bytes(), headers=WAV) for path in sounds]
        all_inside = f"enclap_requests_in_progress {len(posts) + 1}.0"  # that which asks for it is one, too
        while all_inside not in client.get("/metrics").text and not any(post.done() for post in posts):
            pass
        service.send_signal(signal.SIGTERM)
        assert [post.result().status_code for post in posts] == [200] * len(posts)
    assert service.wait(60) == 0
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/health")


def test_sigterm_while_it_loads_ends_it_as_well(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminated(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(serve_local, "load_ensemble", terminated)
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["serve-local", str(bundle), "--port", "0"])
    assert not ended.value.code
    assert "serve: stopped before it answered" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


ENDLESS = """
import sys, threading
from models.service.batcher import Batcher
from models.service.backend import LocalBackend
from models.service.metrics import Metrics
from models.service.server import bind, serve_app
from models.service.settings import ServiceSettings
from tests.models.service.conftest import app_of

def answer(requests, wanted):
    print("answering", file=sys.stderr, flush=True)
    threading.Event().wait()

backend = LocalBackend(None, ServiceSettings(), Metrics())
backend._others = Batcher("endless", answer, Metrics())
serve_app(app_of(backend), bind("127.0.0.1", 0), 1.0)
"""


def test_sigterm_ends_it_whatever_is_computed() -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            url = address(process.stderr)
            with ThreadPoolExecutor() as pool:
                asked = pool.submit(httpx2.post, f"{url}/v1/retrieve", json={"query": "rain"}, timeout=60)
                assert any("answering" in line for line in process.stderr)
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
                assert asked.exception() or asked.result().status_code >= 500
            assert "requests are unanswered after 1 s" in process.stderr.read()
        finally:
            process.kill()


def test_other_machines_need_a_token(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    for host in ("0.0.0.0", "::", "192.168.0.7", "sounds.example"):
        assert "expected a token" in failure(capsys, str(bundle), "--host", host)
    for content in ("", "short", "with spaces in between them", "ünïcode" * 5):
        (tmp_path / "token").write_text(content)
        said = failure(capsys, str(bundle), "--host", "0.0.0.0", "--token-file", str(tmp_path / "token"))
        assert "expected 16 or more" in said
        assert content not in said or not content
    assert "cannot be read" in failure(capsys, str(bundle), "--token-file", str(tmp_path / "none"))
    monkeypatch.setenv(TOKEN, "short")
    assert TOKEN in failure(capsys, str(bundle))


def test_a_token_is_read_from_a_file_or_the_environment(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served = []
    monkeypatch.setattr(serve_local, "run", lambda *arguments: served.append(arguments[3].token.get_secret_value()))
    (tmp_path / "token").write_text("token-of-the-file\n")
    monkeypatch.setenv(TOKEN, "token-of-the-environment")
    for options in ([], ["--token-file", str(tmp_path / "token")]):
        with pytest.raises(SystemExit):
            run_app(app, ["serve-local", str(bundle), "--host", "0.0.0.0", *options])
    assert served == ["token-of-the-environment", "token-of-the-file"]


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("max_duration_s", "NAME=VALUE"),
        ("max_duration=3", "max_duration_s"),
        ("max_requests=0", "greater than or equal"),
        ("timeout_s=inf", "finite"),
        ("batch_size=many", "integer"),
        ("token=a", "max_duration_s"),
    ],
)
def test_limits_that_cannot_be_used(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, limit: str, said: str
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert said in failure(capsys, str(bundle), "--limit", limit)


def test_a_directory_that_is_no_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert "expected a bundle" in failure(capsys, str(tmp_path))


def test_a_port_that_is_taken(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.service.server import bind

    monkeypatch.delenv(TOKEN, raising=False)
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port}" in failure(capsys, str(bundle), "--port", str(port))


def test_one_process_at_a_time_changes_an_index(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    with FileLock(bundle / LOCK):
        assert "another process" in failure(capsys, str(bundle), "--write-index")


def test_what_is_not_installed_is_named(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    for name in [name for name in sys.modules if name.startswith("models.service.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install fastapi prometheus-client python-multipart uvicorn" in failure(capsys, str(bundle))
