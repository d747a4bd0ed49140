"""What a service refuses, with which status and which reason."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi import FastAPI

from models.files import CheckpointError

from .conftest import HeldBackend, MakeClient, app_of

WAV = {"Content-Type": "audio/wav"}
TOKEN = "0123456789abcdef"


def flac(seconds: float, rate: int = 16_000, channels: int = 1) -> bytes:
    """Return a sound that takes few bytes for its length."""
    samples = np.zeros((int(seconds * rate), channels), np.float32)
    samples[0] = 0.5
    written = io.BytesIO()
    soundfile.write(written, samples, rate, format="FLAC")
    return written.getvalue()


def problem(answer: Any) -> tuple[int, str]:
    """Return status and code of an answer, which must be a whole problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    details = answer.json()
    assert {*details} == {"type", "title", "status", "detail", "code"}
    assert details["status"] == answer.status_code
    return answer.status_code, details["code"]


def call(
    app: FastAPI, headers: dict[str, str], body: list[bytes], ends: bool = True, path: str = "/v1/caption"
) -> tuple[int, dict[str, str]]:
    """Send a caption request as no client would, and return status and headers of the answer."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not body and not ends:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body.pop(0) if body else b"", "more_body": bool(body) or not ends}

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.lower().encode(), value.encode()) for name, value in {"Host": "localhost", **headers}.items()]
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": pairs, "http_version": "1.1", "scheme": "http", "server": ("localhost", 80), "client": None,
        "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


class TestSize:
    """413, whatever a request says of its size."""

    def test_is_checked_before_the_body_comes(self) -> None:
        app = app_of(HeldBackend(), max_upload_mib=1)
        assert call(app, {**WAV, "Content-Length": str(2**20 + 1)}, [], ends=False)[0] == 413

    def test_is_checked_as_the_body_comes(self, client: MakeClient) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(3):
                yield bytes(2**19)

        answer = client(max_upload_mib=1).post("/v1/caption", content=chunks(), headers=WAV)
        assert "content-length" not in answer.request.headers
        assert problem(answer) == (413, "too_large")

    def test_is_not_believed(self) -> None:
        app = app_of(HeldBackend(), max_upload_mib=1)
        assert call(app, {**WAV, "Content-Length": "10"}, [bytes(2**20), b"1"])[0] == 413

    @pytest.mark.parametrize("stated", ["-1", "many", "1e3", "²"])
    def test_that_is_no_number_is_refused(self, stated: str) -> None:
        assert call(app_of(HeldBackend()), {**WAV, "Content-Length": stated}, [])[0] == 400

    def test_of_the_file_of_a_form(self, client: MakeClient) -> None:
        service = client(max_upload_mib=1)
        answer = service.post("/v1/caption", files={"file": ("a.wav", bytes(2**20 + 2**15), "audio/wav")})
        assert problem(answer) == (413, "too_large")

    def test_of_json_is_small(self, client: MakeClient) -> None:
        answer = client().post("/v1/retrieve", json={"query": "a" * 2**17})
        assert problem(answer) == (413, "too_large")

    @pytest.mark.parametrize("media_type", ["APPLICATION/JSON", "application/x+json", "audio/wav", ""])
    def test_of_json_is_small_whatever_it_is_called(self, client: MakeClient, media_type: str) -> None:
        headers = {"Content-Type": media_type}
        answer = client().post("/v1/retrieve", content=b'{"query": "%s"}' % (b"a" * 2**17), headers=headers)
        assert problem(answer) == (413, "too_large")


class TestType:
    """415 for what does not say that it is audio."""

    @pytest.mark.parametrize("media_type", ["text/plain", "application/json", "image/png", ""])
    def test_of_a_body(self, client: MakeClient, media_type: str) -> None:
        answer = client().post("/v1/caption", content=b"RIFF", headers={"Content-Type": media_type})
        assert problem(answer) == (415, "unsupported_media_type")

    def test_of_the_file_of_a_form(self, client: MakeClient) -> None:
        answer = client().post("/v1/caption", files={"file": ("a.txt", b"RIFF", "text/plain")})
        assert problem(answer) == (415, "unsupported_media_type")

    def test_of_a_compressed_body(self, client: MakeClient) -> None:
        answer = client().post("/v1/caption", content=b"RIFF", headers={**WAV, "Content-Encoding": "gzip"})
        assert problem(answer) == (415, "unsupported_media_type")

    def test_of_a_search(self, client: MakeClient) -> None:
        answer = client().post("/v1/retrieve", content=b'{"query": "rain"}', headers={"Content-Type": "text/plain"})
        assert problem(answer) == (415, "unsupported_media_type")


class TestContent:
    """422 for what cannot be used, 400 for what is no form."""

    @pytest.mark.parametrize("content", [b"not a sound", flac(1)[:60]])
    def test_that_is_no_sound(self, client: MakeClient, content: bytes) -> None:
        assert problem(client().post("/v1/caption", content=content, headers=WAV)) == (422, "unusable_audio")

    def test_that_is_empty(self, client: MakeClient) -> None:
        assert problem(client().post("/v1/caption", content=b"", headers=WAV)) == (422, "no_sound")

    def test_that_is_too_long(self, client: MakeClient) -> None:
        answer = client(max_duration_s=2).post("/v1/caption", content=flac(2.5), headers=WAV)
        assert problem(answer) == (422, "unusable_audio")
        assert "more than 2 s" in answer.json()["detail"]

    def test_that_has_too_many_windows(self, client: MakeClient, sounds: list[Path]) -> None:
        service, content = client(max_windows=3), sounds[3].read_bytes()
        answer = service.post("/v1/timeline?window_s=0.5", content=content, headers=WAV)
        assert problem(answer) == (422, "invalid")
        assert "4 windows of 1.8 s, expected 3 or fewer" in answer.json()["detail"]
        assert service.post("/v1/timeline?window_s=0.7", content=content, headers=WAV).status_code == 200

    def test_that_is_as_long_as_it_may_be(self, client: MakeClient) -> None:
        assert client(max_duration_s=2).post("/v1/caption", content=flac(2.0), headers=WAV).status_code == 200

    def test_whose_header_does_not_say_how_long_it_is(self, client: MakeClient) -> None:
        content = bytearray(flac(2.5))
        content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])  # STREAMINFO: 36 bits of total samples
        answer = client(max_duration_s=2).post("/v1/caption", content=bytes(content), headers=WAV)
        assert "more than 2 s" in answer.json()["detail"]

    @pytest.mark.parametrize("body", ['{"query": "Vögel"}'.encode("latin-1"), b'{"query": ' + b"[" * 30_000])
    def test_that_is_no_json_that_can_be_read(self, client: MakeClient, body: bytes) -> None:
        answer = client().post("/v1/retrieve", content=body, headers={"Content-Type": "application/json"})
        assert problem(answer) == (400, "bad_request")
        assert "expected it in UTF-8, and not nested deeply" in answer.json()["detail"]

    @pytest.mark.parametrize("where", ["caption?sead=1", "similar?topk=3", "timeline?seed=1&window=5"])
    def test_that_has_a_parameter_of_another_name(self, client: MakeClient, where: str) -> None:
        answer = client().post(f"/v1/{where}", content=flac(1.0), headers=WAV)
        assert problem(answer) == (422, "invalid")
        assert re.search(r"(sead|topk|window)\b", answer.json()["detail"])

    def test_that_is_a_form_that_is_cut_off(self, client: MakeClient) -> None:
        head = {"Content-Type": "multipart/form-data; boundary=x"}
        cut = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'
        answer = client().post("/v1/caption", content=cut, headers=head)
        assert problem(answer) == (422, "no_sound")
        assert "or is the body cut off?" in answer.json()["detail"]

    def test_that_is_a_form_without_a_file(self, client: MakeClient) -> None:
        service = client()
        assert problem(service.post("/v1/caption", files={"sound": ("a.wav", b"RIFF", "audio/wav")}))[0] == 422
        two = [("file", ("a.wav", b"RIFF", "audio/wav"))] * 2
        assert problem(service.post("/v1/caption", files=two))[0] == 400
        broken = {"Content-Type": "multipart/form-data; boundary=x"}
        assert problem(service.post("/v1/caption", content=b"--y\r\n", headers=broken))[0] in (400, 422)
        assert (
            problem(service.post("/v1/caption", content=b"", headers={"Content-Type": "multipart/form-data"}))[0] == 400
        )

    @pytest.mark.parametrize(
        "search",
        [{}, {"query": ""}, {"query": "  "}, {"query": "rain", "top_k": 0}, {"query": "rain", "top_k": 10**9},
         {"query": "rain", "min_duration_s": -1}, {"query": "rain", "path": "/etc"}, {"query": 1}, [], "rain"],
    )  # fmt: skip
    def test_that_is_no_search(self, indexed_client: MakeClient, search: Any) -> None:
        assert problem(indexed_client().post("/v1/retrieve", json=search)) == (422, "invalid")

    def test_that_is_no_json(self, client: MakeClient) -> None:
        answer = client().post("/v1/retrieve", content=b"{", headers={"Content-Type": "application/json"})
        assert problem(answer) == (422, "invalid")

    @pytest.mark.parametrize("query", ["seed=-1", "seed=x", f"seed={2**64}"])
    def test_that_is_no_option(self, client: MakeClient, query: str) -> None:
        assert problem(client().post(f"/v1/caption?{query}", content=flac(1), headers=WAV)) == (422, "invalid")


class TestConcurrency:
    """429 with Retry-After where too many are inside, 504 and 408 where one takes too long."""

    def test_is_bounded(self, client: MakeClient, sounds: list[Path]) -> None:
        held = HeldBackend(answer=[])
        service = client(app_of(held, max_requests=2))
        search = {"query": "rain"}
        with ThreadPoolExecutor() as pool:
            inside = [pool.submit(service.post, "/v1/retrieve", json=search) for _ in range(2)]
            for _ in inside:
                held.asked.acquire()
            refused = service.post("/v1/retrieve", json=search)
            assert service.get("/health").status_code == 200
            held.go.set()
            assert [one.result().status_code for one in inside] == [200, 200]
        assert problem(refused) == (429, "busy")
        assert int(refused.headers["Retry-After"]) >= 1
        assert service.post("/v1/retrieve", json=search).status_code == 200

    def test_ends_what_takes_too_long(self, client: MakeClient) -> None:
        answer = client(app_of(HeldBackend(), timeout_s=0.05)).post("/v1/retrieve", json={"query": "rain"})
        assert problem(answer) == (504, "timeout")

    def test_ends_a_body_that_does_not_come(self) -> None:
        assert call(app_of(HeldBackend(), timeout_s=0.05), WAV, [b"RIFF"], ends=False)[0] == 408
        json = {"Content-Type": "application/json"}
        assert call(app_of(HeldBackend(), timeout_s=0.05), json, [b"{"], ends=False, path="/v1/retrieve")[0] == 408


class TestToken:
    """401 without the token; the page and what load balancers ask need none."""

    @pytest.mark.parametrize(
        "header",
        [{}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Bearer {TOKEN[:-1]}"}, {"Authorization": TOKEN},
         {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer ü".encode()}],
    )  # fmt: skip
    @pytest.mark.parametrize("path", ["/v1/about", "/v1/index", "/v1/none", "/metrics"])
    def test_is_needed(self, client: MakeClient, header: dict[str, Any], path: str) -> None:
        answer = client(token=TOKEN).get(path, headers=header)
        assert problem(answer) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
    def test_lets_in(self, client: MakeClient, scheme: str) -> None:
        service = client(token=TOKEN)
        assert service.get("/v1/about", headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200

    @pytest.mark.parametrize("path", ["/", "/health", "/ready", "/openapi.json"])
    def test_is_not_needed(self, client: MakeClient, path: str) -> None:
        assert client(token=TOKEN).get(path).status_code == 200

    def test_is_in_no_answer(self, client: MakeClient) -> None:
        service = client(token=TOKEN)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        for path in ("/v1/about", "/metrics", "/openapi.json", "/v1/none"):
            assert TOKEN not in service.get(path, headers=headers).text
        assert TOKEN not in repr(service.app.state.settings)  # type: ignore[attr-defined]


class TestOrigin:
    """403 for pages of other sites, also where their name leads to this machine."""

    def test_of_another_site(self, client: MakeClient) -> None:
        service = client()
        answer = service.post("/v1/retrieve", json={"query": "rain"}, headers={"Origin": "https://evil.example"})
        assert problem(answer) == (403, "cross_origin")
        for origin in ("null", "http://[", "http://[::1"):
            assert problem(service.get("/v1/about", headers={"Origin": origin})) == (403, "cross_origin")
        assert service.get("/v1/about", headers={"Origin": "http://localhost"}).status_code == 200

    def test_under_another_name(self, client: MakeClient) -> None:
        service = client()
        headers = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert problem(service.get("/v1/about", headers=headers)) == (403, "unknown_host")
        for host in ("[::1", "[", "[x]", "localhost]"):
            assert problem(service.get("/v1/about", headers={"Host": host})) == (403, "unknown_host")
        for host in ("localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"):
            assert service.get("/v1/about", headers={"Host": host}).status_code == 200
        assert client(token=TOKEN).get(
            "/v1/about", headers={"Host": "sounds.example", "Authorization": f"Bearer {TOKEN}"}
        ).status_code == 200  # fmt: skip


class TestState:
    """What is not the request's fault."""

    @pytest.mark.parametrize("error", [RuntimeError("at /secret/path"), CheckpointError("at /secret/path")])
    def test_a_failure_is_500_and_tells_no_secrets(self, client: MakeClient, error: Exception) -> None:
        held = HeldBackend(error)
        held.go.set()
        answer = client(app_of(held)).post("/v1/retrieve", json={"query": "rain"})
        assert problem(answer) == (500, "internal_error")
        assert "secret" not in answer.text

    def test_not_ready_is_503(self, client: MakeClient) -> None:
        held = HeldBackend()
        service = client(app_of(held))
        assert problem(service.get("/ready")) == (503, "not_ready")
        assert service.get("/health").json() == {"status": "ok"}
        held.go.set()
        assert service.get("/ready").json() == {"status": "ready"}

    def test_unknown_paths_and_methods_are_problems(self, client: MakeClient) -> None:
        service = client()
        assert problem(service.get("/v1/none")) == (404, "not_found")
        answer = service.get("/v1/caption")
        assert problem(answer) == (405, "method_not_allowed")
        assert answer.headers["Allow"] == "POST"

    def test_requests_are_counted_by_route_and_status(self, client: MakeClient) -> None:
        service = client()
        service.get("/v1/about")
        service.get("/v1/index/" + "0" * 32 + "/audio")
        service.get("/v1/none/of/these")
        found = service.get("/metrics").text
        assert 'enclap_requests_total{method="GET",route="/v1/about",status="200"} 1.0' in found
        assert 'route="/v1/index/{id}/audio",status="404"} 1.0' in found
        assert "of/these" not in found
        for name in ("enclap_request_seconds_bucket", "enclap_queue_depth", "enclap_batch_size_bucket"):
            assert name in found
