"""Compare chosen pairs of rows of two arrays, without the matrix of all pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

PAIRS_AT_ONCE = 65_536  # whose rows are held at a time


def compare_pairs(
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray],
    left: np.ndarray,
    lefts: np.ndarray,
    right: np.ndarray,
    rights: np.ndarray,
) -> np.ndarray:
    """Return `compare` of the rows left[lefts[p]] and right[rights[p]], [P].

    Args:
        compare: takes rows [n, D] and [n, D], and returns [n].
        left, right: [L, D] and [R, D].
        lefts, rights: [P] numbers of rows.
    """
    found = [np.empty(0, np.float32)]
    for at in range(0, len(lefts), PAIRS_AT_ONCE):
        some = slice(at, at + PAIRS_AT_ONCE)
        found.append(compare(left[lefts[some]], right[rights[some]]))
    return np.concatenate(found)


def dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the dot products [n] of rows [n, D] with rows [n, D]."""
    products: np.ndarray = np.einsum("nd,nd->n", left, right)
    return products


def distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances [n] of rows [n, D] to rows [n, D]."""
    distances: np.ndarray = np.linalg.norm(left - right, axis=-1)
    return distances
