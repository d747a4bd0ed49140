"""Let signals end a command in order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack; by default they end a process immediately.

    While Ray starts it has a handler of its own for SIGTERM, which exits with the signal's number; that ends alike.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _exit) for number in caught}
    try:
        yield
    except SystemExit as ended:
        if ended.code in caught:
            _exit(signal.Signals(ended.code), None)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, frame: Any) -> None:
    print(f"stopped by {signal.Signals(number).name}; the same command resumes", file=sys.stderr)
    sys.exit(1)
