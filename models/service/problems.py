"""Errors as clients see them: problem details (RFC 9457), one shape for every status."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from ..audio import AudioError
from ..errors import InputError
from ..files import CheckpointError
from ..text import printable
from .engine import EmptyIndexError, UnknownFileError

logger = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
UNREADABLE = "the body cannot be read as JSON; expected it in UTF-8, and not nested deeply"


class ProblemDetails(BaseModel):
    """Problem details of RFC 9457. `code` names the kind of error for programs, `detail` says it to people."""

    type: str = Field("about:blank", description="the title is that of the status", examples=["about:blank"])
    title: str = Field(examples=["Content Too Large"])
    status: int = Field(examples=[413])
    detail: str = Field(examples=["the body has more than 64.0 MiB; send less, or a compressed file"])
    code: str = Field(examples=["too_large"])


class Problem(HTTPException):
    """A request cannot be answered; raised anywhere under the app."""

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code

    def response(self) -> Response:
        """Return the response that says so."""
        status = HTTPStatus(self.status_code)
        details = ProblemDetails(
            type="about:blank", title=status.phrase, status=status, detail=printable(self.detail), code=self.code
        )
        return Response(details.model_dump_json(), status, self.headers, MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's description of the problems that an operation answers with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def add_handlers(app: FastAPI) -> None:
    """Answer every error of an app with problem details."""

    def as_problem(error: Exception) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, StarletteHTTPException):
            code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
            # FastAPI says only that there was an error, for what JSON's own errors do not cover.
            detail = UNREADABLE if isinstance(error.__cause__, UnicodeError | RecursionError) else error.detail
            return Problem(error.status_code, code, detail, error.headers)
        if isinstance(error, RequestValidationError) and isinstance(error.body, bytes):  # which FastAPI did not parse
            return Problem(415, "unsupported_media_type", "Content-Type: expected application/json")
        if isinstance(error, RequestValidationError):
            return Problem(422, "invalid", "; ".join(_explained(one) for one in error.errors()))
        if isinstance(error, AudioError):
            return Problem(422, "unusable_audio", str(error))
        if isinstance(error, EmptyIndexError):
            return Problem(409, "empty_index", str(error))
        if isinstance(error, UnknownFileError):
            return Problem(404, "unknown_file", str(error))
        if isinstance(error, InputError) and not isinstance(error, CheckpointError):
            return Problem(422, "invalid", str(error))
        if isinstance(error, TimeoutError):
            return Problem(504, "timeout", "no answer in time; send a shorter file, or try again when less is asked")
        logger.error("a request failed", exc_info=error)
        return Problem(500, "internal_error", "the service failed to answer; its log says why")

    async def handle(request: Request, error: Exception) -> Response:
        return as_problem(error).response()

    for kind in (StarletteHTTPException, RequestValidationError, InputError, TimeoutError, Exception):
        app.add_exception_handler(kind, handle)


def _explained(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {error['msg']}"
