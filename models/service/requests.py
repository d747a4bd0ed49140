"""What a service asks of its engine: small values, which may be sent to another process, and their answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..audio_sources import Recording
from ..ensemble import Caption, Match, Timeline, Where
from ..ensemble.clip import Clip
from ..ensemble.timeline import timelines
from ..errors import InputError
from ..long_audio import Windowing
from .engine import Engine, FoundFile, ListedFile, Sound

T = TypeVar("T")
Wanted = Callable[[], bool]  # whether anybody still waits for the answer
WINDOW_S = 10.0
UPLOADS = "uploads"  # folder of the names that clients give; files that `enclap index` added have absolute paths
_wanted: ContextVar[Wanted] = ContextVar("wanted", default=lambda: True)  # of what this thread answers


@dataclass(frozen=True)
class IndexPage:
    """Some files of the index, in its order, and how many there are in all."""

    total: int
    files: list[ListedFile]


@dataclass(frozen=True)
class CaptionedSound:
    """The caption of a sound, which may be longer than what the members hear of it."""

    duration_s: float
    heard_s: float
    caption: Caption


@dataclass(frozen=True)
class Request(ABC, Generic[T]):
    """A request to an engine, answered with a T."""

    @property
    def hears(self) -> bool:
        """Return whether it takes audio, which takes long; the others do not wait for those that do."""
        return True

    @property
    def together(self) -> Hashable:
        """Return a key: requests that have it in common are answered together."""
        return id(self)

    @abstractmethod
    def answer(self, engine: Engine) -> T:
        """Return the answer, or raise an InputError."""

    def answers(self, engine: Engine, requests: Sequence[Any]) -> list[Any]:
        """Return the answer to each of some requests that belong together, or the exception that it failed with."""
        return [_attempt(request, engine) for request in requests]


def _attempt(request: Request[T], engine: Engine) -> T | Exception:
    try:
        return request.answer(engine)
    except Exception as error:
        return error


def answer_all(engine: Engine, requests: Sequence[Request[Any]], wanted: Wanted) -> list[Any]:
    """Return the answer to each of some requests, or the exception that it failed with; those with one key together.

    Args:
        wanted: is asked now and then while a long answer is made, which then ends with TimeoutError.
    """
    _wanted.set(wanted)
    answers: dict[int, Any] = {}
    for key in dict.fromkeys(request.together for request in requests):
        alike = {place: request for place, request in enumerate(requests) if request.together == key}
        answers |= zip(alike, requests[min(alike)].answers(engine, [*alike.values()]), strict=True)
    return [answers[place] for place in range(len(requests))]


@dataclass(frozen=True)
class CaptionSound(Request[CaptionedSound]):
    """Caption a sound; those with one seed are captioned together, and none depends on the others."""

    sound: Sound
    seed: int | None

    @property
    def together(self) -> Hashable:
        return CaptionSound, self.seed

    def answer(self, engine: Engine) -> CaptionedSound:
        (answer,) = self.answers(engine, [self])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answers(self, engine: Engine, requests: Sequence[CaptionSound]) -> list[CaptionedSound | Exception]:
        ensemble = engine.ensemble
        heard = ensemble.read_each([request.sound.recording for request in requests])
        clips = [clip for clip in heard if isinstance(clip, Clip)]
        captions = iter(ensemble.caption_clips(clips, self.seed) if clips else [])
        least_s = min(ensemble.limits_s().values())
        return [
            CaptionedSound(clip.duration_s, min(least_s, clip.duration_s), next(captions))
            if isinstance(clip, Clip)
            else clip
            for clip in heard
        ]


@dataclass(frozen=True)
class CaptionWindows(Request[Timeline]):
    """Caption a long sound window by window."""

    sound: Sound
    seed: int | None
    window_s: float | None  # 10, or what is heard of a clip, when left out
    hop_s: float | None

    def answer(self, engine: Engine) -> Timeline:
        longest_s = engine.ensemble.manifest.max_duration_s
        windowing = Windowing.of(self.window_s or min(WINDOW_S, longest_s), self.hop_s, longest_s)
        assert windowing  # as there is a window_s
        number = windowing.number(self.sound.duration_s)
        if number > engine.max_windows:
            raise InputError(
                f"window_s {windowing.window_s:g}, hop_s {windowing.hop_s:g}: are {number} windows of "
                f"{self.sound.duration_s:.1f} s, expected {engine.max_windows} or fewer; make hop_s longer"
            )

        def caption(some: Sequence[Recording]) -> list[Caption]:
            if not _wanted.get()():
                raise TimeoutError
            return engine.ensemble.caption_clips(engine.ensemble.read(some), self.seed)

        (timeline,) = timelines([self.sound.recording], windowing, engine.batch_size, caption)
        return timeline


@dataclass(frozen=True)
class Retrieve(Request[list[FoundFile]]):
    """Search the index by text."""

    query: str
    exclude: str | None
    top_k: int
    where: Where | None

    @property
    def hears(self) -> bool:
        return False

    def answer(self, engine: Engine) -> list[FoundFile]:
        with engine.indexed:
            if not engine.any_meets(self.where):
                return []
            matches = engine.ensemble.retrieve(self.query, self.top_k, exclude=self.exclude, where=self.where)
            return _found(engine, matches)


@dataclass(frozen=True)
class Similar(Request[list[FoundFile]]):
    """Search the index by sound."""

    sound: Sound
    top_k: int
    where: Where | None

    def answer(self, engine: Engine) -> list[FoundFile]:
        with engine.indexed:
            if not engine.any_meets(self.where):
                return []
            return _found(engine, engine.ensemble.similar(self.sound.content, self.top_k, where=self.where))


def _found(engine: Engine, matches: Sequence[Match]) -> list[FoundFile]:
    return [
        FoundFile(**asdict(engine.shown(one.path)), similarity=one.similarity, start_s=one.start_s, end_s=one.end_s)
        for one in matches
    ]


@dataclass(frozen=True)
class ListFiles(Request[IndexPage]):
    """List files of the index."""

    offset: int
    limit: int

    @property
    def hears(self) -> bool:
        return False

    def answer(self, engine: Engine) -> IndexPage:
        with engine.indexed:
            files = engine.ensemble.audio_index.files.present()
            shown = [engine.shown(file.path) for file in files[self.offset : self.offset + self.limit]]
            return IndexPage(len(files), shown)


@dataclass(frozen=True)
class AddFile(Request[ListedFile]):
    """Add a sound to the index under a name; what has the name already is replaced."""

    sound: Sound
    name: str

    def answer(self, engine: Engine) -> ListedFile:
        path = f"{UPLOADS}/{self.name}"
        with engine.indexed:
            engine.ensemble.index([self.sound.content], [path])
            engine.changed()
            return engine.shown(path)


@dataclass(frozen=True)
class RemoveFile(Request[None]):
    """Remove a file from the index; the file itself stays."""

    id: str

    @property
    def hears(self) -> bool:
        return False

    def answer(self, engine: Engine) -> None:
        with engine.indexed:
            engine.ensemble.audio_index.remove([engine.path(self.id)])
            engine.changed()


@dataclass(frozen=True)
class LocateAudio(Request[Path]):
    """Find the file to play for an id."""

    id: str

    @property
    def hears(self) -> bool:
        return False

    def answer(self, engine: Engine) -> Path:
        with engine.indexed:
            return engine.audio(self.id)
