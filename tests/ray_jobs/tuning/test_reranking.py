"""The surface over encoder weight and fluency threshold, with scores beside encoder and decoder."""

import numpy as np
import pytest

from models.ensemble.candidate_table import CandidateTable
from models.ensemble.reranking import Reranking
from ray_jobs.experiment.search_config import SearchConfig
from ray_jobs.tuning.reranking import _surface


@pytest.mark.parametrize(
    "weights",
    [
        {"a": 0.3, "b": 0.2, "decoder": 0.5},
        {"a": 0.1, "b": 0.2, "decoder": 0.2, "length": 0.5},
        {"a": 0.0, "b": 0.0, "decoder": 0.0, "length": 1.0},
    ],
)
def test_the_weights_chosen_lie_on_the_surface(weights: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    shape = (30, 5)
    columns = ["encoder_score/a", "encoder_score/b", "decoder_score", "length_score"][: len(weights)]
    table = CandidateTable(
        texts=[[f"text {n}" for n in range(5)]] * 30,
        captioners=[["one"] * 5] * 30,
        tokens=[[3] * 5] * 30,
        mask=np.ones(shape, bool),
        scores={column: rng.normal(size=shape) for column in columns},
        fluency_error=rng.random(shape),
    )
    value, search = rng.random(shape), SearchConfig(normalisation="z")
    reranking = Reranking(
        weights=weights, normalisation="z", fluency_threshold=search.fluency_threshold, fallback="best"
    )
    surface = _surface(search, table, value, reranking, seed=0)
    expected = value[np.arange(30), reranking.choose(table)].mean()
    both = weights["a"] + weights["b"] + weights["decoder"]
    share = (weights["a"] + weights["b"]) / both if both else 0.7
    here = surface[
        np.isclose(surface["encoder_weight"], share)
        & np.isclose(surface["fluency_threshold"], search.fluency_threshold)
    ]
    assert len(here) == 1
    assert here[search.objective].item() == pytest.approx(expected)
