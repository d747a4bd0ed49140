"""Paired bootstrap: is one system better than another on the same clips, or is it the choice of clips?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

MAX_DRAWN_INDICES = 1 << 21  # held at a time: 16 MiB


class BootstrapInputError(ValueError):
    """Values cannot be compared: their shapes differ, one is not finite, or there are too few groups."""


@dataclass(frozen=True)
class Comparison:
    """The mean of a - b and its 95 % percentile interval, in the unit of the values."""

    delta: float
    ci95: tuple[float, float]


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, resamples: int = 10_000, seed: int = 0, groups: np.ndarray | None = None
) -> Comparison:
    """Return mean(a - b) with its 95 % percentile interval over resampled groups.

    Values of one group are not independent observations (the five captions of a clip all ask for the same sound), so
    whole groups are drawn; a mean then weighs every value alike, however many its group has.

    Args:
        a, b: [N] values of the same items in the same order.
        resamples: how many times all groups are drawn, with replacement.
        groups: [N] labels, equal for the values that belong together; each value alone when left out.

    Raises:
        BootstrapInputError: unequal lengths, a value that is not finite, or fewer than two groups.
    """
    difference = np.asarray(a, float) - np.asarray(b, float)
    _check(np.asarray(a), np.asarray(b), difference)
    labels = np.arange(len(difference)) if groups is None else np.asarray(groups)
    if labels.shape != difference.shape:
        raise BootstrapInputError(f"groups of shape {labels.shape} for {len(difference)} values")
    group = np.unique(labels, return_inverse=True)[1]
    sizes = np.bincount(group).astype(float)
    if len(sizes) < 2:
        raise BootstrapInputError(f"{len(sizes)} group: resampling needs at least two")
    low, high = bootstrap(
        (np.bincount(group, difference), sizes),
        _ratio_of_sums,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, MAX_DRAWN_INDICES // len(sizes)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Comparison(float(difference.mean()), (float(low), float(high)))


def _ratio_of_sums(sums: np.ndarray, sizes: np.ndarray, axis: int = -1) -> np.ndarray:
    ratios: np.ndarray = sums.sum(axis) / sizes.sum(axis)
    return ratios


def _check(a: np.ndarray, b: np.ndarray, difference: np.ndarray) -> None:
    if a.ndim != 1 or a.shape != b.shape:
        raise BootstrapInputError(f"shapes {a.shape} and {b.shape}: expected two lists of equal length")
    bad = np.flatnonzero(~np.isfinite(difference))
    if len(bad):
        raise BootstrapInputError(f"value {int(bad[0])} is not finite: {a[bad[0]]} and {b[bad[0]]}")
