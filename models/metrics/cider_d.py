"""CIDEr-D of many candidates a clip, composed of private parts of aac-metrics.

The library's public `cider_d` takes one candidate a clip, and turns the references into vectors anew at every call; the
parts that it is made of can share them. This module alone depends on these parts: where a release of the library lacks
one, `UnsupportedLibraryError` names it, and a test holds the version they were read in and the values to the public
function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from .library import library

N_GRAMS, SIGMA, SCALE = 4, 6.0, 10.0  # the metric's definition (arXiv 1411.5726, section 5), the library's defaults
Counts = Mapping[tuple[str, ...], int]
Vector = list[dict[tuple[str, ...], float]]  # TF-IDF of the n-grams of each length


class UnsupportedLibraryError(ImportError):
    """This release of aac-metrics is composed of other parts."""


@dataclass(frozen=True)
class Parts:
    """The functions of aac_metrics.functional.cider_d, whose names there begin with two underscores."""

    cook_sentence: Callable[[str, int, Callable[[str], list[str]]], Counts]
    compute_doc_freq: Callable[[list[list[Counts]]], Counts]
    counter_to_vec: Callable[[Counts, float, int, Counts], tuple[Vector, NDArray[np.float64], int]]
    similarity: Callable[..., NDArray[np.float64]]

    @classmethod
    def load(cls) -> Parts:
        """Return the installed library's parts.

        Raises:
            UnsupportedLibraryError: one is not there.
        """
        module = library("functional.cider_d")
        try:
            return cls(**{name: getattr(module, f"__{name}") for name in cls.__dataclass_fields__})
        except AttributeError as error:
            raise UnsupportedLibraryError(f"aac-metrics {version('aac-metrics')}: {error}; expected 0.6") from error


def cider_d_of_candidates(
    candidates: Sequence[str], clip_of: Sequence[int], references: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    """Return CIDEr-D [N], 0..10, of N candidates, with IDF from the references of each clip, counted once.

    Args:
        candidates: N texts, tokens separated by spaces.
        clip_of: N rows of `references`, ascending.
        references: of each of C clips, one or more texts.

    Raises:
        UnsupportedLibraryError: the installed aac-metrics lacks a part.
    """
    parts = Parts.load()
    cooked = [[parts.cook_sentence(text, N_GRAMS, str.split) for text in clip] for clip in references]
    idf = float(np.log(len(references))), N_GRAMS, parts.compute_doc_freq(cooked)
    vectors = {
        text: parts.counter_to_vec(parts.cook_sentence(text, N_GRAMS, str.split), *idf) for text in set(candidates)
    }
    values = np.empty(len(candidates))
    own: list[tuple[Vector, NDArray[np.float64], int]] = []
    at_clip = -1
    for index, (text, clip) in enumerate(zip(candidates, clip_of, strict=True)):
        if clip != at_clip:
            own, at_clip = [parts.counter_to_vec(one, *idf) for one in cooked[clip]], clip
        vector, norm, length = vectors[text]
        alike = [
            parts.similarity(_shared(vector, other), other, norm, other_norm, length, other_length, N_GRAMS, SIGMA)
            for other, other_norm, other_length in own
        ]
        values[index] = np.sum(alike, axis=0).mean() / len(own) * SCALE
    return values


def _shared(vector: Vector, reference: Vector) -> Vector:
    """Return the n-grams that both hold: the others add 0 to the similarity, and take most of its time."""
    return [{gram: own[gram] for gram in own if gram in other} for own, other in zip(vector, reference, strict=True)]
