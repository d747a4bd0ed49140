"""What clients send and are sent as JSON, beside the answers of `requests`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from .. import __version__
from ..ensemble import Where
from ..ensemble.manifest import BundleManifest
from .engine import FoundFile
from .settings import ServiceSettings

LONGEST_QUERY = 1000  # characters
MOST = 1000  # files of one answer
Seconds = Annotated[float | None, Field(ge=0, allow_inf_nan=False)]

Text = Annotated[str | None, Field(max_length=LONGEST_QUERY, pattern=r"^[^\x00]*$")]


class Filters(BaseModel):
    """Which indexed files a search is about; all, where nothing is said."""

    model_config = ConfigDict(extra="forbid")
    name: Text = Field(None, description="of a file, with * and ?", examples=["rain*"])
    folder: Text = Field(None, description="that a file is in, at any depth: a path on the machine of the service")
    min_duration_s: Seconds = None
    max_duration_s: Seconds = None

    def where(self) -> Where | None:
        """Return the filters as the library takes them, None where all files fit."""
        values = {name: value for name in Filters.model_fields if (value := getattr(self, name)) not in (None, "")}
        return Where(**values) if values else None


class TextSearch(Filters):
    """A search by text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": "a dog barks while rain falls", "top_k": 5}]})
    query: str = Field(min_length=1, max_length=LONGEST_QUERY)
    exclude: str | None = Field(None, min_length=1, max_length=LONGEST_QUERY, description="what is not to be heard")
    top_k: int = Field(10, ge=1, le=MOST)


class SoundSearch(Filters):
    """What a search by sound says beside the sound."""

    top_k: int = Field(10, ge=1, le=MOST)


class Found(BaseModel):
    """What a search found, best first."""

    files: list[FoundFile]


class About(BaseModel):
    """What a service is and takes."""

    version: str
    captioners: list[str]
    retrievers: list[str]
    max_upload_bytes: int
    max_duration_s: float
    heard_s: float = Field(description="of a clip, from its beginning; also the longest window")
    share_audio: bool
    write_index: bool

    @classmethod
    def of(cls, manifest: BundleManifest, settings: ServiceSettings) -> About:
        """Return what a service with a bundle and settings says."""
        return cls(
            version=__version__,
            captioners=[*manifest.captioners],
            retrievers=manifest.retrievers,
            **settings.model_dump(include={"share_audio", "write_index", "max_duration_s"}),
            max_upload_bytes=settings.max_upload_bytes,
            heard_s=manifest.max_duration_s,
        )


class Status(BaseModel):
    """The state of a service."""

    status: str = Field(examples=["ok"])


# What operations answer, for OpenAPI.
CAPTIONED = {
    "duration_s": 6.2,
    "heard_s": 6.2,
    "caption": {
        "text": "a dog barks while rain falls",
        "score": 1.25,
        "candidates": [
            {
                "text": "a dog barks while rain falls",
                "captioner": "captioner-bpe",
                "score": 1.25,
                "decoder_score": -1.16,
                "encoder_score": {"retriever-bge": 0.69},
                "fluency_error": 0.02,
                "scores": {"retriever-bge": 0.69, "decoder": -1.16},
            }
        ],
    },
}
TIMELINE = {
    "duration_s": 20.0,
    "segments": [{"start_s": 0.0, "end_s": 10.0, "caption": CAPTIONED["caption"]}],
}
LISTED = {"id": "42218cbd955886ded4c80610df82539c", "name": "/data/recordings/rain.flac", "audio": True}
FOUND = {"files": [{**LISTED, "similarity": 2.48, "start_s": 10.0, "end_s": 20.0}]}


def example(answer: dict[str, Any], status: int = 200) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's description of an answer by an example."""
    return {status: {"content": {"application/json": {"example": answer}}}}


SoundSearchQuery = Annotated[SoundSearch, Query()]
