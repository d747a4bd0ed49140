"""Read the JSON files that earlier runs wrote, and refuse by name what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .files import CheckpointError

Schema = TypeVar("Schema", bound=BaseModel)
SHOWN = 3  # problems that a message names
LONGEST = 60  # characters of a value that a message repeats


class RecordError(CheckpointError):
    """A JSON file of a run or bundle is damaged, edited or of another version.

    The message names the file, the field, what was found, what was expected, and what to do.
    """


def parse_record(schema: type[Schema], text: str, path: Path | str, remedy: str, format: int | None = None) -> Schema:
    """Return a JSON text as an instance of a pydantic model.

    Args:
        path: of the file, for the message.
        remedy: what the user can do, for the message.
        format: the only value of the file's `format` that this version reads, where it has one.

    Raises:
        RecordError: if the text is not JSON or of another format, or a field is missing, unknown or of another type.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}: not JSON ({error}); {remedy}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if format is not None and found != format:
        raise RecordError(f"{path}: format {found!r}, this version reads format {format}; {remedy}")
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        more = [f"{len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise RecordError(f"{path}: {'; '.join([*problems[:SHOWN], *more])}; {remedy}") from error


def _explain(problem: Any) -> str:
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"field {field!r} is missing"
    if problem["type"] == "extra_forbidden":
        return f"found field {field!r}, which this version does not know"
    found = repr(problem["input"])
    shown = found if len(found) <= LONGEST else f"{found[:LONGEST]}..."
    expected = problem["msg"].removeprefix("Value error, ")
    return f"{field}: found {shown}, expected: {expected}" if field else f"{expected} (found {shown})"
