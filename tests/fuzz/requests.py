"""The door of a service: its requests."""

from __future__ import annotations

import json
import logging
import re
import socket
from http import HTTPStatus
from logging.handlers import BufferingHandler
from pathlib import Path
from urllib.parse import urlsplit

from models.ensemble import Ensemble
from models.errors import InputError
from models.service.server import local_app
from models.service.settings import ServiceSettings
from tests.fuzz.door import Door
from tests.models.service.served import Served
from tests.small_bundle import write_bundle, write_sounds

WAIT_S = 10.0  # for an answer
SHORT_S = 0.1  # for an answer to what has no end, which comes only where the service does not wait for that
BOUNDARY = b"cut-here"
FORM = (
    b'--%b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b"%b\r\n--%b--\r\n"
)


class Requests(Door):
    """Requests to a service as they come through its socket, from the first line to the end of the body."""

    name = "http"

    def write(self) -> list[Path]:
        sounds = write_sounds(self.folder / "sounds", 2)
        ensemble = Ensemble.load(write_bundle(self.folder / "bundle"), "cpu")
        ensemble.index(sounds)
        self.served = Served(local_app(ensemble, ServiceSettings(max_upload_mib=0.1, share_audio=True)))
        address = urlsplit(self.served.__enter__())
        self.log = BufferingHandler(1000)
        logging.getLogger("uvicorn.error").addHandler(self.log)
        self.address = (str(address.hostname), int(address.port or 0))
        requests = good_requests(sounds[0].read_bytes())
        for name, content in requests.items():
            (self.folder / name).write_bytes(content)
        return [self.folder / name for name in requests]

    def open(self, path: Path) -> None:
        status, answer = exchange(self.address, path.read_bytes())
        assert exchange(self.address, request("GET /health", "text/plain", b""))[0] == HTTPStatus.OK
        assert status < HTTPStatus.INTERNAL_SERVER_ERROR, answer
        errors = [record.getMessage() for record in self.log.buffer if record.exc_info]
        self.log.flush()
        assert not errors, errors
        if status >= HTTPStatus.BAD_REQUEST:
            raise InputError(answer)

    def close(self) -> None:
        logging.getLogger("uvicorn.error").removeHandler(self.log)
        self.served.__exit__()


def good_requests(sound: bytes) -> dict[str, bytes]:
    """Return requests that are answered, by what they ask for, from the first line to the end of the body."""
    question = json.dumps({"query": "a dog barks", "top_k": 2}).encode()
    form, form_type = FORM % (BOUNDARY, sound, BOUNDARY), f"multipart/form-data; boundary={BOUNDARY.decode()}"
    return {
        "caption": request("POST /v1/caption?seed=3", "audio/wav", sound),
        "timeline": request("POST /v1/timeline?window_s=0.5&hop_s=0.5", "audio/wav", sound),
        "similar": request("POST /v1/similar?top_k=2", form_type, form),
        "retrieve": request("POST /v1/retrieve", "application/json", question),
        "listing": request("GET /v1/index?limit=1&offset=0", "text/plain", b""),
    }


def exchange(address: tuple[str, int], content: bytes, wait_s: float = WAIT_S) -> tuple[int, str]:
    """Send a request; return status and text of the answer, 400 where a request without an end got none.

    Args:
        wait_s: for an answer to a whole request.
    """
    whole = _is_whole(content)
    answer = b""
    with socket.create_connection(address, timeout=wait_s if whole else SHORT_S) as connection:
        try:
            connection.sendall(content)
            while piece := connection.recv(1 << 16):
                answer += piece
        except (TimeoutError, ConnectionError):  # what came before that is the answer
            pass
    if not answer:
        assert not whole, "no answer to a whole request"
        return HTTPStatus.BAD_REQUEST, "no answer"
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode(errors="replace")


def request(line: str, media_type: str, body: bytes) -> bytes:
    """Return a request, of its first line and what its body is."""
    lines = (f"{line} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Type: {media_type}")
    return "\r\n".join((*lines, f"Content-Length: {len(body)}", "", "")).encode() + body


def _is_whole(content: bytes) -> bool:
    head, end, body = content.partition(b"\r\n\r\n")
    stated = re.search(rb"^content-length:\s*(\d+)\r?$", head, re.IGNORECASE | re.MULTILINE)
    return bool(end) and int(stated[1] if stated else 0) <= len(body)
