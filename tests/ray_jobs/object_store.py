"""A real S3 server in threads of this process, which can be gone for a while."""

import logging
import urllib.request
from collections.abc import Callable
from typing import Any

from moto import server as moto_server

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
REFUSAL = b"<Error><Code>AccessDenied</Code><Message>the store is gone</Message></Error>"  # which no client repeats
Request = tuple[str, str]  # method, and path with query


class ObjectStore:
    """The server, with one bucket; `closes` says after which request everything is refused until `is_open` is set."""

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

    def uri(self, name: str) -> str:
        return f"s3://bucket/{name}{self.end}"

    def stop(self) -> None:
        self.server.stop()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if not self.is_open:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [REFUSAL]
        answer = self._moto(environ, start_response)
        if self.closes((environ["REQUEST_METHOD"], f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}")):
            self.is_open = False
        return answer
