"""Write results as JSON files of a pydantic model, and refuse files that do not fit it by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from models.files import write_json
from models.records import RecordError, parse_record
from ray_jobs.run import storage

Result = TypeVar("Result", bound="ResultRecord")


def omitted_when_none(alias: str | None = None) -> Any:
    """Return the default of a field that the file lacks where it is None; other fields that are None are null there."""
    return Field(None, alias=alias, exclude_if=lambda value: value is None)


class ResultPart(BaseModel):
    """An object within a result file."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class ResultRecord(ResultPart):
    """A result file: its name in the job's directory, and the command that writes it."""

    FILE: ClassVar[str]
    COMMAND: ClassVar[str]

    def write(self, directory: Path) -> None:
        """Write the file, its keys in the order of the fields."""
        write_json(directory / self.FILE, self.model_dump(by_alias=True))

    @classmethod
    def read(cls: type[Result], directory: Path, remedy: str | None = None) -> Result:
        """Read the file of a job's directory, from the run's store where this machine lacks it.

        Args:
            remedy: what the user can do about a file that cannot be read, where running the command again is not it.

        Raises:
            RecordError: if it is missing, a directory or damaged, or of another version or edited so that a field does
                not fit.
        """
        path = storage.uri(directory / cls.FILE)
        remedy = remedy or f"remove {storage.uri(directory)} and run `enclap {cls.COMMAND}` again"
        try:
            content = storage.read_bytes(directory / cls.FILE)
        except FileNotFoundError as error:
            raise RecordError(f"{path}: no such file; {remedy}") from error
        except IsADirectoryError as error:
            raise RecordError(f"{path}: found a directory, expected a file; {remedy}") from error
        record = parse_record(cls, content, path, remedy)
        # defaults are those of a configuration: a setting that the file does not name was not what was chosen
        for name, field in cls.model_fields.items():
            if name not in record.model_fields_set and field.exclude_if is None:
                raise RecordError(f"{path}: field {field.alias or name!r} is missing; {remedy}")
        return record
