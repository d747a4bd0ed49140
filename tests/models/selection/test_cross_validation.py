"""The one-standard-error rule and what cross-validation says of a choice."""

import numpy as np
import pytest

from models.errors import TooFewClipsError
from models.selection.cross_validation import SettingRule, cross_validate, pick


def by_hand(values: np.ndarray, complexity: np.ndarray) -> int:
    """The rule in plain words."""
    means = [float(np.mean(row)) for row in values]
    best = int(np.argmax(means))
    allowed = []
    for setting, row in enumerate(values):
        difference = values[best] - row
        if means[best] - means[setting] <= np.std(difference, ddof=1) / np.sqrt(len(row)):
            allowed.append(setting)
    return min(allowed, key=lambda setting: (complexity[setting], -means[setting]))


@pytest.mark.parametrize("seed", range(40))
def test_the_rule_equals_its_words(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(12, 20)) * rng.choice([0.05, 1.0]) + rng.normal(size=(12, 1)) * 0.2 + rng.normal(size=20)
    complexity = rng.integers(0, 5, 12).astype(float)
    assert pick(values, complexity) == by_hand(values, complexity)


def test_best_is_the_highest_and_of_equals_the_simplest() -> None:
    values = np.array([[1.0, 2, 3], [3, 2, 1.3], [1.3, 2, 3]])
    assert pick(values, np.array([0.0, 2, 1]), "best") == 2


def test_a_clear_winner_is_taken_however_complex() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 200))
    values[3] = values.max(0) + 0.1
    assert pick(values, np.arange(5.0)) == 3


@pytest.mark.parametrize("rule", ["one-standard-error", "best"])
def test_folds_equal_a_loop(rule: SettingRule) -> None:
    rng = np.random.default_rng(5)
    values, complexity = rng.normal(size=(30, 23)), rng.random(30)
    choice = cross_validate(values, complexity, rule, folds=4, seed=9)
    fold_of = np.random.default_rng(9).permutation(np.arange(23) % 4)
    for clip in range(23):
        others: np.ndarray = values[:, fold_of != fold_of[clip]]
        assert choice.held_out[clip] == values[pick(others, complexity, rule)][clip]
    assert choice.value == pytest.approx(values[choice.index].mean())
    assert choice.optimism == pytest.approx(choice.value - choice.held_out.mean())


def test_picking_noise_is_found_out() -> None:
    """Settings that differ by luck alone: the highest promises much, its cross-validated value is near the truth."""
    promised, held_out, careful = [], [], []
    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=(300, 60))
        best = cross_validate(values, np.arange(300.0), "best")
        promised.append(best.value)
        held_out.append(best.cross_validated)
        careful.append(cross_validate(values, np.arange(300.0)).value)
    assert np.mean(promised) > 0.3
    assert abs(np.mean(held_out)) < 0.06
    assert np.mean(careful) < np.mean(promised)


def test_too_few_clips() -> None:
    with pytest.raises(TooFewClipsError, match="2 clips"):
        cross_validate(np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(TooFewClipsError, match="1 folds"):
        cross_validate(np.zeros((3, 9)), np.zeros(3), folds=1)
    with pytest.raises(TooFewClipsError, match="at least two"):
        pick(np.zeros((3, 1)), np.zeros(3))
