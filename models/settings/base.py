"""The base of all configurations of models."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

RANDOM = "random:"  # before a model type: random weights, trained from scratch
TRANSFORMERS = "hf:"  # before the hub id or directory of an audio encoder of transformers
Kind = TypeVar("Kind", bound="Settings")


class Settings(BaseModel):
    """Fields of a configuration; unknown keys are errors, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    def convert(self, kind: type[Kind], **more: Any) -> Kind:
        """Return a `kind` with the fields that both classes have, and `more`, which takes precedence."""
        shared = kind.model_fields.keys() & type(self).model_fields.keys() - more.keys()
        return kind(**{field: getattr(self, field) for field in shared}, **more)
