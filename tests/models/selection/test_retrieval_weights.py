"""Choosing retrievers' weights on similarities with known targets."""

import numpy as np
import pytest

from models.ensemble.retrieval_fusion import RetrievalFusion
from models.ensemble.score_arrays import NonFiniteScoreError, RerankingInputError
from models.metrics.retrieval import retrieval_values
from models.selection.retrieval_weights import RetrievalOptions, search_retrieval

from .test_retrieval_precisions import noisy


def similarities(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    pair, target = noisy(seed, decimals=9)
    poor = np.random.default_rng(seed).normal(size=pair[0].shape)
    return {"a": pair[0], "b": pair[1], "poor": poor}, target


@pytest.mark.parametrize("method", ["none", "z", "rank", "rrf"])
def test_every_trial_is_what_the_bundle_would_reach(method: str) -> None:
    known, target = similarities()
    found = search_retrieval(known, target, RetrievalOptions(method, weight_steps=4))
    for trial in found.trials.to_dict("records"):
        fusion = RetrievalFusion(weights={name: trial[name] for name in known}, normalisation=method)
        expected = retrieval_values(fusion.join(known), target).corpus["map@10"]
        assert trial["map@10"] == pytest.approx(expected, abs=1e-9)
    assert found.weights["poor"] < 0.34
    assert found.choice.value <= found.trials["map@10"].max()


def test_two_are_searched_exactly() -> None:
    known, target = similarities()
    del known["poor"]
    found = search_retrieval(known, target, RetrievalOptions(rule="best"))
    assert found.exact_best == pytest.approx(found.choice.value)
    assert found.exact_best == pytest.approx(found.trials["map@10"].max())


def test_equal_weights_where_the_clips_cannot_tell() -> None:
    known, target = similarities()
    twins = {"a": known["a"], "b": known["a"].copy()}
    assert search_retrieval(twins, target, RetrievalOptions()).weights == {"a": 0.5, "b": 0.5}


def test_audio_to_text_has_weights_of_its_own() -> None:
    known, target = similarities()
    found = search_retrieval(known, target, RetrievalOptions(weight_steps=3), "audio-to-text")
    assert sum(found.weights.values()) == pytest.approx(1)
    assert found.exact_best is None
    assert 0 < found.choice.value <= 1


def test_retrievers_of_other_clips_and_missing_similarities_are_named() -> None:
    known, target = similarities()
    queries, clips = known["a"].shape
    with pytest.raises(
        RerankingInputError, match=rf"by b: \({queries}, {clips - 1}\), expected \({queries}, {clips}\) as by a"
    ):
        search_retrieval(known | {"b": known["b"][:, 1:]}, target, RetrievalOptions())
    known["poor"][3, 2] = np.nan
    with pytest.raises(NonFiniteScoreError, match="similarity by poor of query 3, clip 2"):
        search_retrieval(known, target, RetrievalOptions())
