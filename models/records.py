"""Read the JSON files that earlier runs wrote, and refuse by name what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .files import CheckpointError, refuse_pointer

Schema = TypeVar("Schema", bound=BaseModel)
T = TypeVar("T")
TRIES = 50  # to read files that another process replaces again and again
SHOWN = 3  # problems that a message names
LONGEST = 60  # characters of a value that a message repeats


class RecordError(CheckpointError):
    """A JSON file of a run or bundle is damaged, edited or of another version.

    The message names the file, the field, what was found, what was expected, and what to do.
    """


def read_with_files(path: Path, read: Callable[[bytes], T]) -> T:
    """Return what `read` makes of a JSON file and of the files that it names.

    Another process may replace them all, the JSON file last, and remove the old ones: what fails is tried again where
    the JSON file is no longer the same.

    Args:
        path: of the JSON file.
        read: takes its content.

    Raises:
        CheckpointError: as of `read`, or the JSON file is not there.
    """
    for _ in range(TRIES):
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: no such file") from error
        try:
            return read(content)
        except (CheckpointError, OSError):
            if path.is_file() and path.read_bytes() == content:
                raise
    raise CheckpointError(f"{path}: was replaced {TRIES} times while it was read; try again later")


def parse_record(
    schema: type[Schema], content: bytes | str, path: Path | str, remedy: str, format: int | None = None
) -> Schema:
    """Return the content of a JSON file as an instance of a pydantic model.

    Args:
        content: text, or bytes in UTF-8.
        path: of the file, for the message.
        remedy: what the user can do, for the message.
        format: the only value of the file's `format` that this version reads, where it has one.

    Raises:
        RecordError: if the content is not UTF-8, not a JSON object or of another format, or a field is missing, unknown
            or of another type.
    """
    fields = parse_object(content, path, remedy)
    found = fields.get("format")
    if format is not None and (type(found) is not int or found != format):  # True and 1.0 equal 1
        raise RecordError(f"{path}: format {_shortened(found)}, this version reads format {format}; {remedy}")
    return check_fields(schema, fields, path, remedy)


def parse_object(content: bytes | str, path: Path | str, remedy: str) -> dict[str, Any]:
    """Return the content of a JSON file that holds an object.

    Raises:
        RecordError: if the content is a pointer of Git LFS, not UTF-8 or not a JSON object, or one that Python does not
            read: nested a thousand times, or with an integer of thousands of digits.
    """
    refuse_pointer(content, path, "JSON", RecordError)
    try:
        found = json.loads(content if isinstance(content, str) else content.decode())
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8 ({error}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not JSON ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise RecordError(f"{path}: found {_shortened(found)}, expected a JSON object; {remedy}")
    return found


def check_fields(schema: type[Schema], fields: Mapping[str, Any], path: Path | str, remedy: str) -> Schema:
    """Return the fields of a JSON object as an instance of a pydantic model.

    Raises:
        RecordError: if a field is missing, unknown or of another type.
    """
    try:
        return schema.model_validate(dict(fields))
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        more = [f"{len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise RecordError(f"{path}: {'; '.join([*problems[:SHOWN], *more])}; {remedy}") from error


def _explain(problem: Any) -> str:
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"field {field!r} is missing"
    if problem["type"] == "union_tag_not_found":
        key = problem["ctx"]["discriminator"].strip("'")
        return f"field {f'{field}.{key}' if field else key!r} is missing"
    if problem["type"] == "extra_forbidden":
        return f"found field {field!r}, which this version does not know"
    shown = _shortened(problem["input"])
    expected = problem["msg"].removeprefix("Value error, ")
    return f"{field}: found {shown}, expected: {expected}" if field else f"{expected} (found {shown})"


def _shortened(value: Any) -> str:
    try:
        found = repr(value)
    except RecursionError:  # nested almost too deep for being read
        return f"a nested {type(value).__name__}"
    return found if len(found) <= LONGEST else f"{found[:LONGEST]}..."
