"""Check and add up the arrays of reranking and retrieval fusion, in a way that keeps equal values equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError

CHUNK_CELLS = 1 << 17  # cells of one weighting in a chunk: 1 MiB, so that it stays in the cache


class RerankingInputError(ValueError):
    """Arrays that do not belong together, or an unknown method."""


class NoCandidateError(ValueError):
    """A clip has no candidate to choose."""

    def __init__(self, clip: int | str) -> None:
        super().__init__(f"clip {clip} has no candidate")
        self.clip = clip


class NonFiniteScoreError(InputError, ValueError):
    """An unmasked score is NaN or infinite, so that candidates cannot be ordered."""

    def __init__(
        self, what: str, row: int | str, column: int | str, axes: tuple[str, str] = ("clip", "candidate")
    ) -> None:
        super().__init__(
            f"{what} of {axes[0]} {row}, {axes[1]} {column} is not finite: the weights of a member are damaged, or its "
            "training went wrong"
        )
        self.row, self.column = row, column


def safe_divide(centred: np.ndarray, deviation: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return centred / deviation, and 0 where the deviation is only rounding error of the values."""
    equal = deviation <= 8 * np.finfo(centred.dtype).eps * np.abs(values).max(1, keepdims=True)
    return np.where(equal, 0, centred / np.where(equal, 1, deviation))


def weighted_sum(arrays: Sequence[np.ndarray] | np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sum of weight * array, term by term in a fixed order.

    Not a matrix product: BLAS may round equal columns differently, which would break ties at random.
    """
    total = arrays[0] * float(weights[0])
    for array, weight in zip(arrays[1:], weights[1:], strict=True):
        total = total + array * float(weight)
    return total


def refuse_empty(mask: np.ndarray) -> None:
    """Raise NoCandidateError for the first row of mask [C, K] without a True."""
    empty = np.flatnonzero(~mask.any(1))
    if len(empty):
        raise NoCandidateError(int(empty[0]))


def refuse_non_finite(
    what: str, values: np.ndarray, mask: np.ndarray | np.bool, axes: tuple[str, str] = ("clip", "candidate")
) -> None:
    """Raise NonFiniteScoreError for the first cell of values that is not finite where the mask is True."""
    bad = np.argwhere(mask & ~np.isfinite(values))
    if len(bad):
        raise NonFiniteScoreError(what, int(bad[0, 0]), int(bad[0, 1]), axes)
