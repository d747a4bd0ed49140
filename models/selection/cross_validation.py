"""Choose one of many settings without being misled by luck.

The highest of many noisy means is high by luck, too. Two guards, both on the clips' own values:

The one-standard-error rule (Breiman et al. 1984): among the settings whose mean is at most one standard error below the
best one's, take the simplest. Settings are compared clip by clip, so the error is that of the paired difference: clips
that are hard or easy for all settings do not blur the comparison.

Cross-validation: the rule is applied to all clips but one fold, and the setting it picks is valued on that fold. The
mean over all clips of these held-out values is what the choice is worth; how far the chosen setting's own mean lies
above it is the optimism.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import TooFewClipsError

SettingRule = Literal["one-standard-error", "best"]


@dataclass(frozen=True)
class Choice:
    """The setting chosen, and what this way of choosing is worth on C clips."""

    index: int
    value: float  # mean over the clips it was chosen on
    cross_validated: float  # mean over clips of the setting chosen without them
    held_out: np.ndarray  # [C] the values of which cross_validated is the mean
    best_value: float  # the highest mean of any setting

    @property
    def optimism(self) -> float:
        """Return how far the value on the clips it was chosen on exceeds the cross-validated one."""
        return self.value - self.cross_validated


def pick(values: np.ndarray, complexity: np.ndarray, rule: SettingRule = "one-standard-error") -> int:
    """Return the index of the chosen setting.

    Args:
        values: [W, C] of each setting and clip; higher is better.
        complexity: [W], 0 for the simplest; among equally simple ones the higher mean is taken.
        rule: `best` takes the highest mean, the simplest of equals.
    """
    if values.shape[1] < 2:
        raise TooFewClipsError(f"{values.shape[1]} clip, expected at least two for a standard error")
    means = values.mean(1)
    # means of equal values differ in their last bits
    tolerance = 1e-12 * max(1.0, float(np.abs(means).max()))
    best = int(np.flatnonzero(means >= means.max() - tolerance)[0])
    difference = values[best] - values
    errors = difference.std(1, ddof=1) / np.sqrt(values.shape[1])
    within = means[best] - means <= errors + tolerance
    near = means >= means.max() - tolerance if rule == "best" else within
    order = np.lexsort((-means, np.where(near, np.round(complexity, 12), np.inf)))
    return int(order[0])


def cross_validate(
    values: np.ndarray, complexity: np.ndarray, rule: SettingRule = "one-standard-error", folds: int = 5, seed: int = 0
) -> Choice:
    """Choose on all clips, and value the choice on clips that had no part in it.

    Args:
        values: [W, C]; several values of a clip are summed beforehand (`retrieval_precisions.by_clip`).
        complexity, rule: as for `pick`.
        folds: of the clips, drawn with `seed`; at most as many as there are clips.

    Raises:
        TooFewClipsError: fewer than three clips (a fold is left out, and two must remain), or fewer than two folds.
    """
    fold_of = fold_numbers(values.shape[1], folds, seed)
    held_out = np.empty(values.shape[1])
    for fold in range(fold_of.max() + 1):
        out = fold_of == fold
        index = pick(values[:, ~out], complexity, rule)
        held_out[out] = values[index, out]
    index = pick(values, complexity, rule)
    means = values.mean(1)
    return Choice(index, float(means[index]), float(held_out.mean()), held_out, float(means.max()))


def fold_numbers(clips: int, folds: int, seed: int) -> np.ndarray:
    """Return the fold [C] of each clip, drawn with `seed`; there are at most as many folds as clips.

    Raises:
        TooFewClipsError: fewer than three clips (a fold is left out, and two must remain), or fewer than two folds.
    """
    folds = min(folds, clips)
    if clips < 3 or folds < 2:
        raise TooFewClipsError(f"{clips} clips in {folds} folds, expected at least three clips and two folds")
    return np.random.default_rng(seed).permutation(np.arange(clips) % folds)
