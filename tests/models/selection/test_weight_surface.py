"""Surfaces of choices, and the settings that clips cannot tell from the best."""

import numpy as np

from models.ensemble.reranking import allowed_candidates, select
from models.metrics.bootstrap import paired_bootstrap
from models.selection.weight_surface import behind_best, reranking_surface


def test_every_cell_is_what_select_gives() -> None:
    rng = np.random.default_rng(0)
    encoder, decoder, error, value = rng.random((4, 15, 6))
    mask = rng.random((15, 6)) < 0.8
    mask[:, 0] = True
    weights, thresholds = np.array([0.0, 0.3, 1.0]), np.array([0.2, 0.9])
    scores = np.stack([encoder, decoder])
    surface = reranking_surface(scores, [allowed_candidates(error, mask, t) for t in thresholds], value, weights)
    assert surface.shape == (2, 3, 15)
    for t, threshold in enumerate(thresholds):
        for w, weight in enumerate(weights):
            pair = np.array([weight, 1 - weight])
            chosen = select(scores, pair, error, mask, threshold)
            np.testing.assert_array_equal(surface[t, w], value[np.arange(15), chosen])


def test_intervals_agree_with_the_paired_bootstrap() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=120) + 0.3 * rng.normal(size=(6, 120)) + np.array([0, 0.5, 0.49, 0.1, 0.2, 0.4])[:, None]
    behind = behind_best(values, resamples=4000)
    for setting, row in enumerate(values):
        expected = paired_bootstrap(values[behind.best], row)
        np.testing.assert_allclose(behind.delta[setting], expected.delta, atol=1e-12)
        np.testing.assert_allclose([behind.low[setting], behind.high[setting]], expected.ci95, atol=0.012)


def test_the_best_and_its_twins_are_indifferent_and_a_bad_one_is_not() -> None:
    values = np.stack([np.ones(30), np.ones(30), np.zeros(30)])
    assert behind_best(values).tied_with_best.tolist() == [True, True, False]
