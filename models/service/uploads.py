"""Take sounds from the bodies of requests, raw or as a form's file, without trusting what their headers say."""

from __future__ import annotations

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from .engine import Sound
from .problems import Problem
from .settings import ServiceSettings

FORM = "multipart/form-data"
RAW = ("audio/*", "video/*", "application/ogg", "application/octet-stream")
BODY: dict[str, Any] = {  # for OpenAPI, which FastAPI cannot know of what reads the body itself
    "requestBody": {
        "required": True,
        "description": "An audio file: the file of a form, or the body itself.",
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        }
        | {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in RAW},
    }
}


async def read_sound(request: Request) -> Sound:
    """Return the sound of a request, whose length the settings allow.

    Raises:
        Problem: 415 for another media type; 422 for a body without a sound.
        AudioError: the sound cannot be decoded, or is too long.
    """
    settings: ServiceSettings = request.app.state.settings
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Problem(415, "unsupported_media_type", f"Content-Encoding: found {encoding}, expected none")
    media_type = _media_type(request.headers.get("content-type"))
    sound = await _of_form(request) if media_type == FORM else await _of_body(request, media_type)
    if not sound.content:
        raise Problem(422, "no_sound", "the body is empty, expected an audio file")
    return await run_sync(sound.checked, settings.max_duration_s)


UploadedSound = Annotated[Sound, Depends(read_sound)]


def _media_type(header: str | None) -> str:
    return (header or "").partition(";")[0].strip().lower()


def _check_type(media_type: str, where: str) -> None:
    """Refuse what does not say that it is audio, or nothing about what it is."""
    if not media_type.startswith(("audio/", "video/")) and media_type not in RAW:
        raise Problem(
            415, "unsupported_media_type", f"{where}: found {media_type or 'none'}, expected {', '.join((FORM, *RAW))}"
        )


async def _of_body(request: Request, media_type: str) -> Sound:
    _check_type(media_type, "Content-Type")
    return Sound(await request.body())


async def _of_form(request: Request) -> Sound:
    async with request.form(max_files=1, max_fields=0) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            reason = "the form has no whole file called `file`; has it another name, or is the body cut off?"
            raise Problem(422, "no_sound", reason)
        _check_type(_media_type(file.content_type), "Content-Type of `file`")
        return Sound(await file.read(), file.filename or "the sound")
