"""A real S3 server in threads of this process, which can be gone for a while."""

import logging
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from moto import server as moto_server

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
REFUSAL = b"<Error><Code>AccessDenied</Code><Message>the store is gone</Message></Error>"  # which no client repeats
BUSY = b"<Error><Code>SlowDown</Code><Message>the store was stalled</Message></Error>"  # which clients repeat
STALL_S = 60.0
Request = tuple[str, str]  # method, and path with query


class ObjectStore:
    """The server, with one bucket.

    `closes` says after which request everything is refused until `is_open` is set; `stalls` after which request, the
    first one, nothing is answered or done for `STALL_S` seconds.
    """

    def __init__(self, port: int = 0) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT"))
        assert server._server is not None
        self.server, self._moto, server._server.app = server, server._server.app, self
        self.end = f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
        self.is_open = True
        self.closes: Callable[[Request], bool] = lambda request: False
        self.stalls: Callable[[Request], bool] = lambda request: False
        self.stalled_until = 0.0  # as of time.monotonic

    def uri(self, name: str) -> str:
        return f"s3://bucket/{name}{self.end}"

    def stop(self) -> None:
        """Forget what was stored, which the next server of this process would have, and end."""
        assert self.server._server is not None
        self.server._server.app = self._moto
        host, port = self.server.get_host_and_port()
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST"))
        self.server.stop()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if not self.is_open:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [REFUSAL]
        if (left := self.stalled_until - time.monotonic()) > 0:
            time.sleep(left)  # who asked has given up by then
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [BUSY]
        answer = self._moto(environ, start_response)
        request = environ["REQUEST_METHOD"], f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        if self.closes(request):
            self.is_open = False
        if not self.stalled_until and self.stalls(request):
            self.stalled_until = time.monotonic() + STALL_S
        return answer
