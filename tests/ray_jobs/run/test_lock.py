"""One writer per run directory, between real processes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ray_jobs import cli
from ray_jobs.experiment.config import ConfigError
from ray_jobs.run.lock import LOCK, OWNER, RunBusyError, heartbeat_age_s, only_writer, read_owner

from ..conftest import ROOT, RayCluster
from ..small_training import MEMBER, write_experiment

LEASE_S = 2.0
HOLDER = """
import signal, sys, time
from pathlib import Path
from ray_jobs.run.lock import only_writer
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
with only_writer(Path(sys.argv[1]), lease_s=float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""
Holder = subprocess.Popen[str]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[[], Holder]]:
    """Starts processes that hold `tmp_path / "run"`, and ends them."""
    started: list[Holder] = []

    def start() -> Holder:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path / "run"), str(LEASE_S)],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        while (line := process.stdout.readline()) and line != "held\n":
            pass
        assert line == "held\n", process.communicate()[1]
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def fake_foreign_owner(run: Path, silent_s: float) -> None:
    """Make the lock look as if a process of another host had died some time ago."""
    lock = run / LOCK
    lines = ["host=elsewhere" if line.startswith("host=") else line for line in lock.read_text().splitlines()]
    lock.write_text("\n".join(lines) + "\n")
    owner = json.loads((run / OWNER).read_text())
    (run / OWNER).write_text(json.dumps(owner | {"host": "elsewhere", "job": "raysubmit_1"}))
    os.utime(lock, (time.time() - silent_s,) * 2)


def test_the_second_writer_is_refused_and_learns_who_writes(tmp_path: Path, hold: Callable[[], Holder]) -> None:
    first = hold()
    refused = pytest.raises(RunBusyError, match=rf"being written by .*process {first.pid} on .*last sign of life")
    with refused, only_writer(tmp_path / "run", LEASE_S):
        pass
    assert first.poll() is None
    first.kill()
    assert (tmp_path / "run" / LOCK).exists(), "the refused process must not remove the lock of the other"


def test_the_command_exits_2_before_any_work(
    tmp_path: Path, hold: Callable[[], Holder], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    run = tmp_path / "run"
    process = hold()
    before = read_owner(run)
    for job in ("prepare", "train", "pipeline"):
        with pytest.raises(SystemExit) as error:
            cli.main([job, str(ROOT / "experiments" / "smoke.yaml"), "name=run", f"storage_path={tmp_path}"])
        assert error.value.code == 2
        assert f"process {process.pid}" in capsys.readouterr().err
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    assert read_owner(run) == before


def test_a_killed_owner_is_replaced_without_waiting_for_its_lease(
    tmp_path: Path, hold: Callable[[], Holder], capsys: pytest.CaptureFixture[str]
) -> None:
    first = hold()
    first.kill()
    first.wait()
    with only_writer(tmp_path / "run"):  # its process id shows that it is dead: otherwise the run would be busy
        owner = read_owner(tmp_path / "run")
        assert owner is not None
        assert owner.pid == os.getpid()
    assert f"taken over from `-c {tmp_path}/run" in capsys.readouterr().err
    assert not list((tmp_path / "run").iterdir())


def test_a_silent_owner_elsewhere_is_watched_then_replaced(
    tmp_path: Path, hold: Callable[[], Holder], capsys: pytest.CaptureFixture[str]
) -> None:
    hold().kill()
    fake_foreign_owner(tmp_path / "run", silent_s=600)
    start = time.monotonic()
    with only_writer(tmp_path / "run", LEASE_S):
        assert time.monotonic() - start > LEASE_S
    printed = capsys.readouterr().err
    assert "job raysubmit_1" in printed
    assert "last heard of 10 min ago" in printed
    assert "taken over" in printed


def test_an_owner_elsewhere_whose_clock_is_behind_keeps_its_lock(tmp_path: Path, hold: Callable[[], Holder]) -> None:
    """Its heartbeats look old, but they come."""
    run = tmp_path / "run"
    process = hold()
    os.kill(process.pid, signal.SIGSTOP)
    fake_foreign_owner(run, silent_s=600)
    beat = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys, time\nwhile True:\n os.utime(sys.argv[1], (time.time() - 600,) * 2)\n time.sleep(0.3)",
            str(run / LOCK),
        ]
    )
    try:
        with pytest.raises(RunBusyError, match="elsewhere"), only_writer(run, LEASE_S):
            pass
    finally:
        beat.kill()
        beat.wait()
        process.kill()


def test_the_heartbeat_keeps_the_lock_beyond_its_lease(tmp_path: Path, hold: Callable[[], Holder]) -> None:
    hold()
    time.sleep(1.5 * LEASE_S)
    age = heartbeat_age_s(tmp_path / "run")
    assert age is not None
    assert age < LEASE_S
    with pytest.raises(RunBusyError), only_writer(tmp_path / "run", LEASE_S):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_releases(tmp_path: Path, hold: Callable[[], Holder], number: signal.Signals) -> None:
    process = hold()
    process.send_signal(number)
    assert process.wait(60) != 0
    assert not (tmp_path / "run").exists(), "nothing was written, so nothing stays"
    with only_writer(tmp_path / "run", LEASE_S):
        pass


def test_who_lost_the_lock_stops(tmp_path: Path, hold: Callable[[], Holder]) -> None:
    process = hold()
    (tmp_path / "run" / LOCK).unlink()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "lost" in errors


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    """Each winner appends a line at the start and at the end; two inside together would interleave them."""
    script = """
import sys, time
from pathlib import Path
from ray_jobs.run.lock import RunBusyError, only_writer
run = Path(sys.argv[1])
time.sleep(max(0, float(sys.argv[2]) - time.time()))
try:
    with only_writer(run):
        with (run.parent / "log").open("a") as log:
            log.write("in\\n"); log.flush(); time.sleep(0.2); log.write("out\\n")
except RunBusyError:
    sys.exit(2)
"""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kept").touch()
    at = str(time.time() + 4)
    processes = [subprocess.Popen([sys.executable, "-c", script, tmp_path / "run", at], cwd=ROOT) for _ in range(4)]
    codes = [process.wait() for process in processes]
    assert set(codes) <= {0, 2}
    assert 0 in codes
    assert (tmp_path / "log").read_text() == "in\nout\n" * codes.count(0)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["kept"]


@pytest.mark.slow
def test_of_two_submissions_of_one_run_one_works(cluster: RayCluster, tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path / "runs", 2, {})
    command = ["python", "-m", "ray_jobs.train", str(experiment)]
    with ThreadPoolExecutor(2) as pool:
        both = [*pool.map(lambda _: cluster.submit(*command, timeout_s=600), range(2))]
    done, refused = sorted(both, key=lambda one: one.returncode)
    assert done.returncode == 0, done.stdout[-3000:]
    assert refused.returncode, refused.stdout[-3000:]
    assert "is being written by" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert (tmp_path / "runs" / "small" / "members" / MEMBER / "model.safetensors").is_file()


def test_the_owner_names_the_ray_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"runtime_env": {"env_vars": {"HF_TOKEN": "hf_secret"}}, "metadata": {"job_submission_id": "raysubmit_7"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))
    with only_writer(tmp_path / "run"):
        owner = read_owner(tmp_path / "run")
        assert owner is not None
        assert owner.job == "raysubmit_7"
        assert "hf_secret" not in (tmp_path / "run" / OWNER).read_text()


def test_storage_that_is_read_only_is_named_with_its_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / LOCK))

    monkeypatch.setattr("ray_jobs.run.lock.SoftFileLease.acquire", refuse)
    told = rf"^{tmp_path}: cannot be written \(Read-only file system\); make it writable, .* by storage_path$"
    with pytest.raises(ConfigError, match=told), only_writer(tmp_path):
        pass
