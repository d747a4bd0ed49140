"""Let signals end a command in order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CAUGHT = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack; by default they end a process immediately.

    While Ray starts it has a handler of its own for SIGTERM, which exits with the signal's number; that ends alike.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _exit) for number in CAUGHT}
    try:
        yield
    except SystemExit as ended:
        if ended.code in CAUGHT:
            _exit(signal.Signals(ended.code), None)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Put the handlers of this module in place again where the block has set others.

    Ray does so when it starts; its own prints the frames of native code.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in CAUGHT}
    yield
    for number, handler in before.items():
        if handler is _exit:
            signal.signal(number, handler)


def _exit(number: int, frame: Any) -> None:
    print(f"stopped by {signal.Signals(number).name}; the same command resumes", file=sys.stderr)
    sys.exit(1)
