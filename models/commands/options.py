"""Options that commands share, and what becomes of them. Loads nothing, so that `--help` and completion are quick."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

import typer

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


class Format(StrEnum):
    """How captions are written."""

    TABLE = "table"
    TSV = "tsv"
    JSON = "json"
    CSV = "csv"
    SRT = "srt"
    VTT = "vtt"


@dataclass(frozen=True)
class Loading:
    """Where and how precisely members compute; see `Ensemble.load`."""

    device: str | None = None
    dtype: str | None = None
    int8: bool = False
