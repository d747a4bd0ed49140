"""The paired bootstrap: its centre, its width, its p-value, and what groups do to it; Holm's correction."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from models.metrics.bootstrap import BootstrapInputError, holm, paired_bootstrap


def test_width_is_that_of_the_normal_approximation() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 800), rng.normal(0, 1, 800)
    found = paired_bootstrap(a, b, resamples=4000)
    half = 1.96 * (a - b).std() / np.sqrt(800)
    assert found.delta == pytest.approx((a - b).mean())
    np.testing.assert_allclose(found.ci95, (found.delta - half, found.delta + half), atol=0.1 * half)


def test_pairs_stay_together() -> None:
    b = np.random.default_rng(0).normal(0, 100, 50)
    found = paired_bootstrap(b + 0.5, b, resamples=200)
    np.testing.assert_allclose([found.delta, *found.ci95], 0.5)


def test_whole_groups_are_drawn() -> None:
    rng = np.random.default_rng(0)
    per_clip = rng.normal(size=100)
    clip = rng.permutation(np.repeat(np.arange(100), 5))
    values, zero = per_clip[clip], np.zeros(500)

    def width(groups: np.ndarray | None = None) -> float:
        low, high = paired_bootstrap(values, zero, resamples=4000, groups=groups).ci95
        return high - low

    # five equal values a clip say no more than one: the interval is that of 100 values, sqrt(5) times as wide
    assert width(groups=clip) / width() == pytest.approx(np.sqrt(5), rel=0.1)
    single = paired_bootstrap(per_clip, np.zeros(100), resamples=4000).ci95
    assert width(groups=clip) == pytest.approx(single[1] - single[0], rel=0.1)


def test_groups_of_unequal_size_weigh_by_their_values() -> None:
    found = paired_bootstrap(np.array([1.0, 1, 1, 0]), np.zeros(4), resamples=500, groups=np.array([7, 7, 7, 2]))
    assert found.delta == 0.75
    assert found.ci95 == (0.0, 1.0)


def test_seed_decides() -> None:
    a, b = np.random.default_rng(0).random((2, 40))
    assert paired_bootstrap(a, b, 300, seed=1) == paired_bootstrap(a, b, 300, seed=1)
    assert paired_bootstrap(a, b, 300, seed=1) != paired_bootstrap(a, b, 300, seed=2)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.random.default_rng(0).random((2, 40))
    whole = paired_bootstrap(a, b, 300)
    monkeypatch.setattr("models.metrics.bootstrap.MAX_DRAWN_INDICES", 400)
    assert paired_bootstrap(a, b, 300) == whole


@pytest.mark.parametrize(
    ("a", "b", "groups", "message"),
    [
        ([1.0, 2], [1.0], None, "equal length"),
        ([1.0, np.nan], [1.0, 1], None, "value 1 is not finite"),
        ([1.0], [1.0], None, "at least two"),
        ([1.0, 2], [1.0, 2], [0, 0], "at least two"),
        ([1.0, 2], [1.0, 2], [0], "groups of shape"),
    ],
)
def test_refusals(a: list[float], b: list[float], groups: list[int] | None, message: str) -> None:
    with pytest.raises(BootstrapInputError, match=message):
        paired_bootstrap(np.array(a), np.array(b), groups=None if groups is None else np.array(groups))


@pytest.mark.parametrize("shift", [0.02, 0.1, 0.15, -0.12])
def test_p_value_is_that_of_the_t_test_where_differences_are_normal(shift: float) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(shift, 1, 400), rng.normal(0, 1, 400)
    found = paired_bootstrap(a, b)
    assert found.p_value == pytest.approx(ttest_rel(a, b).pvalue, rel=0.25, abs=0.002)
    assert (found.p_value < 0.05) == (found.ci95[0] > 0 or found.ci95[1] < 0)
    assert paired_bootstrap(b, a).p_value == pytest.approx(found.p_value, rel=0.1)


def test_p_value_is_never_zero_and_1_of_equal_values() -> None:
    values = np.random.default_rng(0).random(30)
    assert paired_bootstrap(values + 1, values, 999).p_value == 2 / 1000
    assert paired_bootstrap(values, values, 999).p_value == 1


def test_holm_is_the_closed_bonferroni_test() -> None:
    """A hypothesis is rejected if Bonferroni rejects every set of hypotheses that it is in (Marcus et al. 1976)."""
    rng = np.random.default_rng(3)
    for size in (1, 2, 3, 6):
        p = rng.random(size) ** 3
        sets = [one for k in range(size) for one in combinations(range(size), k + 1)]
        expected = [max(min(1.0, len(one) * min(p[[*one]])) for one in sets if i in one) for i in range(size)]
        np.testing.assert_allclose(holm(p.tolist()), expected)
    assert holm([0.01, 0.01, 0.04]).tolist() == [0.03, 0.03, 0.04]
