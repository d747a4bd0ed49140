"""Mutate the files of a door many times, and collect what is not refused by name.

    python -m tests.fuzz.run --door audio --count 10000 --seed 0 --keep findings

A case is one mutated file. It is a finding if what opens it raises anything but InputError, takes longer than
`SECONDS`, makes the process grow by more than `GROWTH` bytes, or writes a file. Cases depend on the seed and their
number alone: `--first 4711 --count 1` repeats one.
"""

from __future__ import annotations

import argparse
import faulthandler
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import InputError
from tests.fuzz.door import Door
from tests.fuzz.doors import DOORS

SECONDS = 20
GROWTH = 1 << 30


@dataclass(frozen=True)
class Finding:
    """A case in which something else happened than that the file was used or refused by name."""

    door: str
    case: int
    file: str
    content: bytes
    what: str

    def __str__(self) -> str:
        return f"{self.door}, case {self.case}, {self.file}: {self.what}"


class TooLongError(BaseException):
    """A case took too long; no code that is tested catches it."""


def fuzz(door: type[Door], seed: int, cases: Iterator[int], seconds: float = float("inf")) -> tuple[int, list[Finding]]:
    """Run cases until there are no more or the time is up; return their number and the findings."""
    ran, findings = 0, list[Finding]()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        tested = door(Path(scratch) / door.name)
        stack.callback(tested.close)
        files = tested.write()
        good = {path: path.read_bytes() for path in files}
        for path in files[:1] if door.together else files:
            tested.open(path)  # as they are, they must be accepted
        there, end = _listing(Path(scratch)), time.monotonic() + seconds
        for case in cases:
            if time.monotonic() > end:
                break
            rng = np.random.default_rng([seed, case])
            path = files[rng.integers(len(files))]
            path.write_bytes(content := tested.mutate(good[path], rng))
            ran += 1
            if what := _outcome(tested, path) or _written(Path(scratch), there):
                findings.append(Finding(door.name, case, path.name, content, what))
            path.write_bytes(good[path])
    return ran, findings


def _outcome(door: Door, path: Path) -> str:
    """Open a file; return what was wrong with that, or "" where it was used or refused by name."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            door.open(path)
    except InputError as error:
        if not str(error).strip():
            return "an error without a message"
    except TooLongError:
        return f"longer than {SECONDS} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {str(error)[:300]}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return f"{grown >> 20} MiB more memory" if grown > GROWTH else ""


@contextmanager
def _limited() -> Iterator[None]:
    """Raise TooLongError in the main thread after `SECONDS`; what never returns to Python is shown after twice that."""

    def late(number: int, frame: Any) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def _listing(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.name.endswith(".lock")}


def _written(folder: Path, before: set[Path]) -> str:
    """Return which files were written or removed, and remove what is new."""
    now = _listing(folder)
    for path in sorted(now - before, reverse=True):
        path.unlink() if not path.is_dir() else path.rmdir()
    changed = sorted(str(path.relative_to(folder)) for path in now ^ before)
    return f"files written or removed: {', '.join(changed)}" if changed else ""


def main() -> int:
    """Fuzz one door or all; return the number of findings, 255 at most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--door", choices=[door.name for door in DOORS], help="all of them when left out")
    parser.add_argument("--count", type=int, default=10_000, help="cases of each door")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop each door after this time")
    parser.add_argument("--keep", type=Path, help="keep the files of findings in this folder")
    options = parser.parse_args()
    total = 0
    for door in DOORS:
        if options.door not in (None, door.name):
            continue
        begun, cases = time.monotonic(), iter(range(options.first, options.first + options.count))
        ran, findings = fuzz(door, options.seed, cases, options.seconds)
        print(f"{door.name}: {ran} cases in {time.monotonic() - begun:.0f} s, {len(findings)} findings", flush=True)
        for found in findings:
            print(f"  {found}", flush=True)
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{found.door}-{found.case}-{found.file}").write_bytes(found.content)
        total += len(findings)
    return min(total, 255)


if __name__ == "__main__":
    sys.exit(main())
