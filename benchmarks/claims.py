"""Shared by the benchmarks: sides that are timed in turns, and a result as a table and one line of JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypedDict

import psutil


class Claim(TypedDict):
    """One comparison."""

    ours: float
    baseline: float
    ratio: float  # the higher, the better
    target: float | None  # of the ratio; None where nothing is claimed and the comparison informs
    unit: str  # of ours and baseline


Claims = dict[str, Claim]


def claim(ours: float, baseline: float, target: float | None, unit: str, less: bool = False) -> Claim:
    """Return one comparison.

    Args:
        less: the fewer of the unit, the better.
    """
    ratio = baseline / ours if less else ours / baseline
    return {"ours": ours, "baseline": baseline, "ratio": ratio, "target": target, "unit": unit}


def show(claims: Claims) -> None:
    """Print the table, and as the last line the JSON."""
    widest = max(len(name) for name in claims)
    for name, row in claims.items():
        target = "" if row["target"] is None else f", target {row['target']:.3g}"
        print(
            f"{name:>{widest}}: ours {row['ours']:.4g}  baseline {row['baseline']:.4g} {row['unit']}  "
            f"ratio {row['ratio']:.2f}{target}"
        )
    print(json.dumps(claims))


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the command line whose help is a script's docstring."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_device(arguments: argparse.ArgumentParser, whose: str = "of both sides") -> None:
    """Add the option --device: by default the GPU if there is one."""
    import torch  # late: not all benchmarks need it

    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help=whose)


def finish_device() -> None:
    """Wait for a GPU to finish what it was given, which goes on after a call returns."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """Yield the highest anonymous (`RssAnon`) and mapped memory (`RssFile`) of this process meanwhile, in KiB; Linux.

    The system takes back pages of mapped files where memory is needed.
    """
    peak, ended = {"RssAnon": 0, "RssFile": 0}, threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(":")
                if name in peak:
                    peak[name] = max(peak[name], int(value.split()[0]))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def memory_mib(process: psutil.Process) -> float:
    """Return the memory that would be free without a process and those that it started (`uss`)."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):  # it has ended
            total += one.memory_full_info().uss
    return total / 2**20


def in_turns(sides: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median seconds of each side, after one call of each to warm up.

    The sides are called in turns, so that whatever else the machine does falls on all of them.
    """
    taken: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 1):
        for side, seconds in zip(sides, taken, strict=True):
            finish_device()
            start = time.perf_counter()
            side()
            finish_device()
            if number:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(one) for one in taken]
