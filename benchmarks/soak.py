"""A service under mixed load for a while, bad requests among it: is its memory flat, its p99 stable, and nothing lost?

    python benchmarks/soak.py [BUNDLE] [--minutes 20] [--clients 8] [--bad 0.2] [--seed 0]

`enclap serve-local` is started by its command. Each client sends one request after the other over a connection of its
own: captions, timelines, searches by text and by sound, listings, files that are added to the index and removed again;
a share of them mutated as `tests/fuzz` does it. A row is printed for each minute: requests that were answered, refused
(4xx), and of the good ones those that were lost (5xx, or no answer within two minutes) or refused; p50 and p99 of the
seconds from sending a sound to having its caption; and the memory of the service (`uss` of its processes).

The claims compare the last quarter of the minutes with the second one, as the first one warms up: memory and p99, the
fewer the better. `kept` is the share of good requests that were answered.

Without a bundle, one of members with random weights is made (tests/small_bundle.py), and sounds of one to two seconds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from claims import claim, memory_mib, parser, show
from serve import ROOT, Service, started

sys.path.insert(0, str(ROOT))

WAIT_S = 120.0
FEWEST_MINUTES = 4
# How often each is asked for; `added` is one request that adds a file, and one that removes it.
SHARES = {"caption": 0.3, "timeline": 0.05, "similar": 0.15, "retrieve": 0.35, "listing": 0.1, "added": 0.05}
MEMORY, P99 = 1.1, 1.5  # of the last quarter against the second


@dataclass
class Load:
    """What clients ask of a service, and what it answers."""

    address: tuple[str, int]
    sounds: Sequence[bytes]
    bad: float  # share of requests
    end: float  # as of time.monotonic
    answers: list[tuple[float, str, bool, int, float]] = field(default_factory=list)
    told: set[tuple[str, bool, int]] = field(default_factory=set)  # kinds of answers that were printed

    def ask(self, seed: int) -> None:
        """Send requests, one after the other, until the end."""
        from tests.fuzz.mutations import mutate
        from tests.fuzz.requests import good_requests

        rng = np.random.default_rng(seed)
        while time.monotonic() < self.end:
            kind = str(rng.choice([*SHARES], p=[*SHARES.values()]))
            sound = self.sounds[int(rng.integers(len(self.sounds)))]
            if kind == "added":
                self._add_and_remove(sound)
                continue
            content = good_requests(sound)[kind]
            if rng.random() < self.bad:
                self._send(kind, mutate(content, rng), good=False)
            else:
                self._send(kind, content)

    def _add_and_remove(self, sound: bytes) -> None:
        from tests.fuzz.requests import request

        name = f"{threading.get_ident()}-{time.monotonic_ns()}.wav"
        status, answer = self._send("add", request(f"POST /v1/index?name={name}", "audio/wav", sound))
        if status == HTTPStatus.CREATED:
            self._send("remove", request(f"DELETE /v1/index/{json.loads(answer)['id']}", "text/plain", b""))

    def _send(self, kind: str, content: bytes, good: bool = True) -> tuple[int, str]:
        from tests.fuzz.requests import exchange

        begun = time.monotonic()
        try:
            status, answer = exchange(self.address, content, WAIT_S)
        except (AssertionError, OSError) as error:
            status, answer = 0, str(error)
        unexpected = status == 0 or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if (unexpected or (good and status >= HTTPStatus.BAD_REQUEST)) and (kind, good, status) not in self.told:
            self.told.add((kind, good, status))
            print(f"first {kind}, {'good' if good else 'bad'}: {status} {answer[:200]}", flush=True)
        self.answers.append((begun, kind, good, status, time.monotonic() - begun))
        return status, answer


def soak(service: Service, sounds: Sequence[bytes], options: Namespace) -> pd.DataFrame:
    """Return, and print as they come, the rows of the minutes."""
    host, _, port = service.host.partition(":")
    process, start = psutil.Process(service.process.pid), time.monotonic()
    load = Load((host, int(port)), sounds, options.bad, start + 60 * options.minutes)
    seeds = [options.seed * 1000 + client for client in range(options.clients)]
    clients = [threading.Thread(target=load.ask, args=(seed,), daemon=True) for seed in seeds]
    for client in clients:
        client.start()
    rows = []
    for minute in range(options.minutes):
        time.sleep(max(0.0, start + 60 * (minute + 1) - time.monotonic()))
        answers = pd.DataFrame(load.answers, columns=["begun", "kind", "good", "status", "seconds"])
        rows.append(_row(minute, answers[(answers["begun"] - start) // 60 == minute], memory_mib(process)))
        print("  ".join(f"{name} {value:g}" for name, value in rows[-1].items()), flush=True)
    for client in clients:
        client.join(WAIT_S)
    return pd.DataFrame(rows)


def _row(minute: int, answers: pd.DataFrame, memory: float) -> dict[str, float]:
    good, status = answers["good"], answers["status"]
    seconds = answers.loc[good & (answers["kind"] == "caption") & (status == HTTPStatus.OK), "seconds"]
    lost = good & ((status == 0) | (status >= HTTPStatus.INTERNAL_SERVER_ERROR))
    refused = status.between(400, 499)
    return {
        "minute": minute + 1,
        "answered": int(status.between(200, 299).sum()),
        "refused": int(refused.sum()),
        "good_lost": int(lost.sum()),
        "good_refused": int((good & refused).sum()),
        "good_sent": int(good.sum()),
        "failed": int((status >= HTTPStatus.INTERNAL_SERVER_ERROR).sum()),
        "p50_s": round(float(seconds.median()), 3),
        "p99_s": round(float(seconds.quantile(0.99)), 3),
        "memory_mib": round(memory, 1),
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("bundle", nargs="?", type=Path)
    arguments.add_argument("--minutes", type=int, default=20, help=f"at least {FEWEST_MINUTES}")
    arguments.add_argument("--clients", type=int, default=8)
    arguments.add_argument("--bad", type=float, default=0.2, help="share of requests that are mutated")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    if options.minutes < FEWEST_MINUTES:
        arguments.error(f"--minutes {options.minutes}: fewer than {FEWEST_MINUTES} have no quarters to compare")
    from tests.small_bundle import write_bundle, write_sounds

    with tempfile.TemporaryDirectory() as folder:
        paths = write_sounds(Path(folder) / "sounds", 16)
        bundle = Path(folder) / "bundle"  # a copy, whose index is this one's
        if options.bundle:
            shutil.copytree(options.bundle, bundle, ignore=shutil.ignore_patterns("index"))
        else:
            write_bundle(bundle)
        index = [sys.executable, "-m", "ray_jobs.cli", "index", str(bundle), str(paths[0].parent)]
        subprocess.run(index, check=True, cwd=ROOT)
        command = ["serve-local", str(bundle), "--port", "0", "--write-index"]
        with (Path(folder) / "log").open("wb") as log, started(command, log) as service:
            minutes = soak(service, [path.read_bytes() for path in paths], options)
        said = (Path(folder) / "log").read_text(errors="replace")
        if "Traceback" in said:
            print(said[said.index("Traceback") :][:5000])
    quarter = options.minutes // 4
    before, after = minutes.iloc[quarter : 2 * quarter], minutes.iloc[-quarter:]
    sent, lost = int(minutes["good_sent"].sum()), int(minutes["good_lost"].sum() + minutes["good_refused"].sum())
    sides = [(after[name].median(), before[name].median()) for name in ("memory_mib", "p99_s")]
    show({
        "memory": claim(*sides[0], 1 / MEMORY, "MiB", less=True),
        "p99": claim(*sides[1], 1 / P99, "s", less=True),
        "kept": claim(sent - lost, sent, 1.0, "good requests"),
    })  # fmt: skip


if __name__ == "__main__":
    main()
