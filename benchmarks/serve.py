"""A service that captions: 16 clients at once against one request at a time, and requests while a replica is killed.

    python benchmarks/serve.py [BUNDLE] [--requests 96] [--rounds 3] [--clients 16] [--only throughput|killed]

`throughput`: captions a second that `enclap serve-local` answers when 16 clients each send a sound as soon as the last
was answered, against one client that does the same. Both sides ask the same process, in turns; it is started by its
command, and asked over HTTP by this process, which shares the machine with it. `p50` and `p99` are the seconds from
sending a sound to having its caption, of all rounds; nothing is claimed of them, as who waits for a batch waits longer.

`killed`: of requests that 16 clients send to `enclap serve --replicas 2`, those that are answered with a caption, when
one of the two replicas is killed (SIGKILL) after a quarter of the answers. What the killed one was answering is sent to
the other by the app (`ray_jobs.serve.ReplicaBackend`), not by these clients, which try nothing twice.

Without a bundle, one of members with random weights is made (tests/small_bundle.py), and sounds of one to two seconds.
A bundle's captions decide how much there is to gain: what a batch saves is the work that does not depend on its size.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import IO

import psutil
from claims import Claims, claim, parser, show

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

MARK = "ENCLAP_SERVED"  # environment variable by which the processes of a service are known from others
READY = "Ctrl-C ends"  # of what the commands say


@dataclass(frozen=True)
class Service:
    """A service that a command started."""

    process: subprocess.Popen[bytes]
    host: str
    mark: str

    def caption(self, sound: bytes) -> tuple[int, float]:
        """Return status and seconds of a request for a caption."""
        start = time.perf_counter()
        connection = HTTPConnection(self.host, timeout=600)
        connection.request("POST", "/v1/caption", sound, {"Content-Type": "audio/wav"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, time.perf_counter() - start

    def replicas(self) -> list[psutil.Process]:
        """Return the processes of the ensemble's replicas on Ray Serve."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            ours = (process.info["environ"] or {}).get(MARK) == self.mark
            if ours and "ServeReplica:enclap:EnsembleReplica" in " ".join(process.info["cmdline"] or []):
                found.append(process)
        return found


@contextmanager
def started(command: Sequence[str], log: IO[bytes]) -> Iterator[Service]:
    """Start a service on a free port, wait until it is ready, and end it by SIGTERM.

    Args:
        command: of `enclap`, with its arguments.
        log: a new file, for what the command says.

    Raises:
        RuntimeError: it ended instead; with what it said.
    """
    environment = {**os.environ, MARK: log.name, "PYTHONPATH": str(ROOT)}
    for name in ("ENCLAP_TOKEN", "RAY_ADDRESS"):
        environment.pop(name, None)
    python = [sys.executable, "-m", "ray_jobs.cli", *command]
    process = subprocess.Popen(python, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        while READY not in (said := Path(log.name).read_text(encoding="utf-8", errors="replace")):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(python)} ended:\n{said}")
            time.sleep(0.2)
        yield Service(process, said.split("http://")[-1].split(",")[0].split(";")[0], log.name)
    finally:
        process.terminate()
        process.wait(300)


def throughput(service: Service, sounds: Sequence[bytes], clients: int, rounds: int) -> Claims:
    """Return the claim of captions a second, and the latencies of both sides."""
    rates: dict[int, list[float]] = {clients: [], 1: []}
    seconds: dict[int, list[float]] = {clients: [], 1: []}
    for number in range(rounds + 1):
        for side in rates:
            start = time.perf_counter()
            with ThreadPoolExecutor(side) as pool:
                answers = list(pool.map(service.caption, sounds))
            if number:  # the first one warms up
                rates[side].append(len(sounds) / (time.perf_counter() - start))
                seconds[side] += [taken for _, taken in answers]
            assert all(status == 200 for status, _ in answers)
    many, alone = (statistics.median(rates[side]) for side in rates)
    percentiles = {side: statistics.quantiles(taken, n=100) for side, taken in seconds.items()}
    latencies = {
        name: claim(percentiles[clients][at - 1], percentiles[1][at - 1], None, "s", less=True)
        for name, at in (("p50", 50), ("p99", 99))
    }
    return {"throughput": claim(many, alone, 3.0, "captions/s"), **latencies}


def killed(service: Service, sounds: Sequence[bytes], clients: int) -> Claims:
    """Return the claim of requests that are answered although a replica is killed meanwhile."""
    with ThreadPoolExecutor(clients) as pool:
        sent = [pool.submit(service.caption, sound) for sound in sounds]
        for one in sent[: len(sent) // 4]:
            one.result()
        service.replicas()[0].kill()
        statuses = [one.result()[0] for one in sent]
    return {"killed": claim(statuses.count(200), len(statuses), 1.0, "requests answered")}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("bundle", nargs="?", type=Path)
    arguments.add_argument("--requests", type=int, default=96, help="of a round")
    arguments.add_argument("--rounds", type=int, default=3, help="of each side, taken in turns, after one to warm up")
    arguments.add_argument("--clients", type=int, default=16)
    arguments.add_argument("--only", choices=["throughput", "killed"])
    options = arguments.parse_args()
    from models.service.server import bind  # late: found once this project's folder is looked in
    from tests.small_bundle import write_bundle, write_sounds

    found: Claims = {}
    with tempfile.TemporaryDirectory() as folder:
        sounds = [path.read_bytes() for path in write_sounds(Path(folder) / "sounds", 16)]
        sounds = [sounds[number % len(sounds)] for number in range(options.requests)]
        bundle = str(options.bundle or write_bundle(Path(folder) / "bundle"))
        if options.only != "killed":
            with (
                (Path(folder) / "local").open("wb") as log,
                started(["serve-local", bundle, "--port", "0"], log) as service,
            ):
                found |= throughput(service, sounds, options.clients, options.rounds)
        if options.only != "throughput":
            with bind("127.0.0.1", 0) as free:
                command = ["serve", bundle, "--replicas", "2", "--port", str(free.getsockname()[1])]
            with (Path(folder) / "ray").open("wb") as log, started(command, log) as service:
                found |= killed(service, sounds, options.clients)
    show(found)


if __name__ == "__main__":
    main()
