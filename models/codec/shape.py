"""Tell what captioners must know of a codec, also of an official one whose file is not here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .base import load_codec
from .weights import CodecError

# Of descript's releases: codebooks, sample rate and hop; all have 1,024 entries in a codebook.
OFFICIAL_SHAPES = {
    "dac-44khz": (9, 44_100, 512),
    "dac-44khz-16kbps": (18, 44_100, 512),
    "dac-24khz": (32, 24_000, 320),
    "dac-16khz": (12, 16_000, 320),
}


@dataclass(frozen=True)
class CodecShape:
    """The shape of a codec's codes."""

    codebooks: int
    codebook_size: int
    frames_per_s: float


@cache
def codec_shape(source: str | Path, n_codebooks: int | None = None) -> CodecShape:
    """Return the shape of the codes of a codec, which is named as in `load_codec`.

    Raises:
        CodecError: if it cannot be loaded, and is not an official one.
    """
    try:
        codec = load_codec(source, n_codebooks)
    except CodecError:
        if source not in OFFICIAL_SHAPES:
            raise
        codebooks, sample_rate, hop = OFFICIAL_SHAPES[str(source)]
        return CodecShape(n_codebooks or codebooks, 1024, sample_rate / hop)
    return CodecShape(codec.n_codebooks, codec.codebook_size, codec.sample_rate / codec.hop_length)
