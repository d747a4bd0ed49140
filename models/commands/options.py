"""Options that commands share, and what becomes of them. Loads nothing, so that `--help` and completion are quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..arguments import check_int8

if TYPE_CHECKING:
    from ..ensemble.filters import Where

Device = Annotated[
    str | None,
    typer.Option(help="Where to compute, such as cpu, cuda or cuda:1; the GPU if there is one when left out"),
]
DType = Annotated[
    Literal["fp32", "bf16", "fp16"] | None,
    typer.Option(help="What linear layers compute in: fp32 when left out; bf16 and fp16 take half the memory"),
]
Int8 = Annotated[bool, typer.Option("--int8", help="Let linear layers compute in 8-bit integers, on the CPU")]
BatchSize = Annotated[int, typer.Option(min=1, help="Files, or windows, that are computed together")]
Window = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="Cut files into windows of this length; only their beginning is heard without"
    ),
]
Hop = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="From the beginning of a window to that of the next; side by side when left out"
    ),
]

Host = Annotated[str, typer.Option(help="Where to listen; other hosts than this machine's own need a token")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one")]
TokenFile = Annotated[
    Path | None,
    typer.Option(dir_okay=False, help="A file with the token that clients must send; else ENCLAP_TOKEN holds it"),
]
ServiceLimits = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAME=VALUE", help="max_upload_mib, max_duration_s, max_requests, timeout_s, ..."),
]
ShareAudio = Annotated[bool, typer.Option("--share-audio", help="Let clients listen to the files of the index")]
WriteIndex = Annotated[bool, typer.Option("--write-index", help="Let clients change the bundle's index")]
LOCALHOST = "127.0.0.1"


class Format(StrEnum):
    """How captions are written."""

    TABLE = "table"
    TSV = "tsv"
    JSON = "json"
    CSV = "csv"
    SRT = "srt"
    VTT = "vtt"


class MatchFormat(StrEnum):
    """How what a search found is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True)
class Loading:
    """Where and how precisely members compute; see `Ensemble.load`."""

    device: str | None = None
    dtype: str | None = None
    int8: bool = False

    def __post_init__(self) -> None:
        check_int8(self.dtype, self.int8)


@dataclass(frozen=True)
class Searching:
    """What is searched, and how what is found is printed.

    Attributes:
        paths: search in these files and directories; in the index of the bundle where there are none.
        where: conditions that files meet.
        all_windows: list all windows of a file that are among the best, not its best one alone.
        captioners: whether they may help, where the bundle weighs them.
        window_s, hop_s: search in windows of the paths, of this length and that far apart.
        format: when left out a table in a terminal, lines of rank, similarity and path where standard output is piped.
    """

    paths: list[Path]
    top_k: int = 10
    where: Where | None = None
    all_windows: bool = False
    captioners: bool = True
    window_s: float | None = None
    hop_s: float | None = None
    format: MatchFormat | None = None
    loading: Loading = field(default_factory=Loading)
