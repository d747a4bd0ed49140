"""Paired bootstrap: is one system better than another on the same clips, or is it the choice of clips?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

MAX_DRAWN_INDICES = 1 << 21  # held at a time: 16 MiB


class BootstrapInputError(ValueError):
    """Values cannot be compared: their shapes differ, one is not finite, or there are too few groups."""


@dataclass(frozen=True)
class Comparison:
    """The mean of a - b, its 95 % percentile interval, in the unit of the values, and its two-sided p-value."""

    delta: float
    ci95: tuple[float, float]
    p_value: float


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, resamples: int = 10_000, seed: int = 0, groups: np.ndarray | None = None
) -> Comparison:
    """Return mean(a - b) with its 95 % percentile interval and its p-value over resampled groups.

    Values of one group are not independent observations (the five captions of a clip all ask for the same sound), so
    whole groups are drawn; a mean then weighs every value alike, however many its group has.

    The p-value is twice the share of resamples whose mean lies on the other side of zero, or on it (Koehn 2004), with
    one added to both counts (Davison and Hinkley 1997, section 4.2): it is never 0, and below 5 % where the interval
    excludes zero.

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
    found = bootstrap(
        (np.bincount(group, difference), sizes),
        _ratio_of_sums,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, MAX_DRAWN_INDICES // len(sizes)),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    return Comparison(float(difference.mean()), (float(low), float(high)), _p_value(found.bootstrap_distribution))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted so that all are right together at their level (Holm 1979), in the order given.

    Args:
        p_values: of M comparisons that are made together.

    Returns:
        [M], in 0..1.
    """
    found = np.asarray(p_values, float)
    order = np.argsort(found, kind="stable")
    adjusted = np.empty_like(found)
    adjusted[order] = np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1))
    bounded: np.ndarray = np.minimum(adjusted, 1.0)
    return bounded


def _p_value(means: np.ndarray) -> float:
    tail = min((means <= 0).sum(), (means >= 0).sum())
    return min(1.0, 2 * float(tail + 1) / (len(means) + 1))


def _ratio_of_sums(sums: np.ndarray, sizes: np.ndarray, axis: int = -1) -> np.ndarray:
    ratios: np.ndarray = sums.sum(axis) / sizes.sum(axis)
    return ratios


def _check(a: np.ndarray, b: np.ndarray, difference: np.ndarray) -> None:
    if a.ndim != 1 or a.shape != b.shape:
        raise BootstrapInputError(f"shapes {a.shape} and {b.shape}: expected two lists of equal length")
    bad = np.flatnonzero(~np.isfinite(difference))
    if len(bad):
        raise BootstrapInputError(f"value {int(bad[0])} is not finite: {a[bad[0]]} and {b[bad[0]]}")
