"""Weightings to compare searches with."""

from itertools import product

import numpy as np


def simplex_grid(number: int, steps: int) -> np.ndarray:
    """All weightings [W, number] of multiples of 1 / steps that sum to 1."""
    parts = product(range(steps + 1), repeat=number)
    return np.array([one for one in parts if sum(one) == steps]) / steps
