"""A service on a port of its own, in a thread of this process."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import uvicorn

from models.service.connections import uvicorn_config
from models.service.server import bind


@dataclass
class Served:
    """A service on a port of its own."""

    app: Any
    timeout_s: float = 60.0

    def __enter__(self) -> str:
        bound = bind("127.0.0.1", 0)
        bound.listen()
        self.server = uvicorn.Server(uvicorn_config(self.app, self.timeout_s))
        self.thread = threading.Thread(target=self.server.run, args=([bound],))
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{bound.getsockname()[1]}/"

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
