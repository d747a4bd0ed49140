"""The operations of a service."""

from __future__ import annotations

import asyncio
from mimetypes import guess_type
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Response
from fastapi import Request as HttpRequest
from fastapi.responses import FileResponse
from fastapi.security import HTTPBearer

from ..ensemble import Timeline
from .backend import Backend
from .engine import ListedFile
from .metrics import Metrics
from .problems import Problem, documented
from .requests import (
    AddFile,
    CaptionedSound,
    CaptionSound,
    CaptionWindows,
    IndexPage,
    ListFiles,
    LocateAudio,
    RemoveFile,
    Request,
    Retrieve,
    Similar,
)
from .schemas import (
    CAPTIONED,
    FOUND,
    LISTED,
    MOST,
    TIMELINE,
    About,
    Found,
    SoundSearchQuery,
    Status,
    TextSearch,
    example,
)
from .settings import ServiceSettings
from .uploads import BODY, UploadedSound

T = TypeVar("T")
ALWAYS = (401, 403, 413, 422, 429, 500, 504)
UPLOAD = (*ALWAYS, 400, 408, 415)
Id = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="as `GET /v1/index` and searches say it")]
Seed = Annotated[int | None, Query(ge=0, le=2**32 - 1, description="of the sampling; the bundle's own when left out")]
Name = Annotated[
    str, Query(min_length=1, max_length=200, pattern=r"^[^/\\\x00-\x1f\x7f]+$", examples=["rain on a roof.wav"])
]


class Asker:
    """Asks the backend of an app, for as long as its settings allow."""

    def __init__(self, request: HttpRequest) -> None:
        self.settings: ServiceSettings = request.app.state.settings
        self._backend: Backend = request.app.state.backend

    async def ask(self, question: Request[T]) -> T:
        """Return the answer to a question.

        Raises:
            TimeoutError: it takes too long; where it waits, it is not answered at all.
            InputError: it cannot be answered.
        """
        async with asyncio.timeout(self.settings.timeout_s):
            return await self._backend.ask(question)

    def refuse_read_only(self) -> None:
        """Raise a problem where clients may not change the index."""
        if not self.settings.write_index:
            remedy = "start the service with --write-index, and a single replica"
            raise Problem(403, "read_only", f"the index cannot be changed here; {remedy}")


def refuse_unknown(request: HttpRequest) -> None:
    """Raise a problem for a parameter that an operation does not have, such as a mistyped one."""
    operation = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    known = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    for name in request.query_params:
        if name not in known:
            raise Problem(422, "invalid", f"query.{name}: no such parameter, expected {', '.join(known) or 'none'}")


Ask = Annotated[Asker, Depends()]
bearer = Depends(HTTPBearer(auto_error=False))  # for OpenAPI; the guard asks for the token
operations = APIRouter(prefix="/v1", dependencies=[bearer, Depends(refuse_unknown)])
state = APIRouter()


@operations.get("/about", responses=documented(401, 403, 422))
async def about(request: HttpRequest) -> About:
    """Say what the service is and takes."""
    answer: About = request.app.state.about
    return answer


@operations.post("/caption", responses=documented(*UPLOAD) | example(CAPTIONED), openapi_extra=BODY)
async def caption(ask: Ask, sound: UploadedSound, seed: Seed = None) -> CaptionedSound:
    """Caption a sound, with all candidates and their scores. No caption depends on what others send meanwhile."""
    return await ask.ask(CaptionSound(sound, seed))


@operations.post("/timeline", responses=documented(*UPLOAD) | example(TIMELINE), openapi_extra=BODY)
async def timeline(
    ask: Ask,
    sound: UploadedSound,
    window_s: Annotated[
        float | None, Query(gt=0, le=600, description="of a window; 10 when left out, or heard_s")
    ] = None,
    hop_s: Annotated[
        float | None, Query(ge=0.5, le=600, description="from window to window; a window's length")
    ] = None,
    seed: Seed = None,
) -> Timeline:
    """Caption a long sound window by window."""
    return await ask.ask(CaptionWindows(sound, seed, window_s, hop_s))


@operations.post("/retrieve", responses=documented(*ALWAYS, 400, 409, 415) | example(FOUND))
async def retrieve(ask: Ask, search: TextSearch) -> Found:
    """Find the indexed files that fit a text best."""
    return Found(files=await ask.ask(Retrieve(search.query, search.exclude, search.top_k, search.where())))


@operations.post("/similar", responses=documented(*UPLOAD, 409) | example(FOUND), openapi_extra=BODY)
async def similar(ask: Ask, sound: UploadedSound, search: SoundSearchQuery) -> Found:
    """Find the indexed files that sound most like a recording."""
    return Found(files=await ask.ask(Similar(sound, search.top_k, search.where())))


@operations.get("/index", responses=documented(*ALWAYS) | example({"total": 1, "files": [LISTED]}))
async def list_files(
    ask: Ask,
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=0, le=MOST)] = 100,
) -> IndexPage:
    """List the indexed files."""
    return await ask.ask(ListFiles(offset, limit))


@operations.post("/index", status_code=201, responses=documented(*UPLOAD) | example(LISTED, 201), openapi_extra=BODY)
async def add_file(ask: Ask, name: Name, sound: UploadedSound) -> ListedFile:
    """Add a sound to the index, as `uploads/NAME`; what has this name already is replaced. The sound is not kept."""
    ask.refuse_read_only()
    return await ask.ask(AddFile(sound, name))


@operations.delete("/index/{id}", status_code=204, responses=documented(*ALWAYS, 404))
async def remove_file(ask: Ask, id: Id) -> None:
    """Remove a file from the index; the file itself stays."""
    ask.refuse_read_only()
    await ask.ask(RemoveFile(id))


@operations.get(
    "/index/{id}/audio",
    response_class=FileResponse,
    responses={**documented(*ALWAYS, 404, 416), 200: {"content": {"audio/*": {}}}, 206: {"content": {"audio/*": {}}}},
)
async def audio(ask: Ask, id: Id) -> FileResponse:
    """Send an indexed file, where the service shares them and the file is as it was indexed."""
    file = await ask.ask(LocateAudio(id))
    guessed = guess_type(file.name)[0] or ""
    # A file that is a sound may be a web page, too, and is not to be shown as one.
    media_type = guessed if guessed.startswith(("audio/", "video/")) else "application/octet-stream"
    return FileResponse(file, media_type=media_type, headers={"Cache-Control": "private"})


@state.get("/health")
async def health() -> Status:
    """Say that the process answers."""
    return Status(status="ok")


@state.get("/ready", responses=documented(503))
async def ready(request: HttpRequest) -> Status:
    """Say whether requests would be answered now."""
    backend: Backend = request.app.state.backend
    if not await backend.ready():
        raise Problem(503, "not_ready", "the ensemble is not loaded", {"Retry-After": "5"})
    return Status(status="ready")


@state.get(
    "/metrics",
    dependencies=[bearer],
    response_class=Response,
    responses={**documented(401, 403), 200: {"content": {"text/plain": {}}}},
)
async def metrics(request: HttpRequest) -> Response:
    """Return the values that Prometheus reads, of this process."""
    found: Metrics = request.app.state.metrics
    return Response(found.exposition(), media_type=found.media_type)


def add_routes(app: FastAPI) -> None:
    """Add all operations to an app."""
    app.include_router(operations)
    app.include_router(state)
