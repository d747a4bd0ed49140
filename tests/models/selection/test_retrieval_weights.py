"""Choosing retrievers' weights on similarities with known targets."""

import numpy as np
import pytest

from models.ensemble.retrieval_fusion import RetrievalFusion
from models.ensemble.score_arrays import NonFiniteScoreError, RerankingInputError, weighted_sum
from models.metrics.retrieval import RetrievalInputError, retrieval_values
from models.selection.retrieval_weights import (
    Direction,
    RetrievalOptions,
    RetrievalProblem,
    careful_best,
    search_retrieval,
)
from models.selection.rules import RULES, NestedSearch, Solution, compare

from .test_retrieval_precisions import noisy, values_of_clips, whole_curve


def similarities(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    pair, target = noisy(seed, decimals=9)
    poor = np.random.default_rng(seed).normal(size=pair[0].shape)
    return {"a": pair[0], "b": pair[1], "poor": poor}, target


@pytest.mark.parametrize("method", ["none", "z", "rank", "rrf"])
def test_every_trial_is_what_the_bundle_would_reach(method: str) -> None:
    known, target = similarities()
    found = search_retrieval(known, target, RetrievalOptions(method))
    for trial in found.trials.to_dict("records"):
        fusion = RetrievalFusion(weights={name: trial[name] for name in known}, normalisation=method)
        expected = retrieval_values(fusion.join(known), target).corpus["map@10"]
        assert trial["map@10"] == pytest.approx(expected, abs=1e-9)
    assert found.fusion.weights["poor"] < 0.34
    assert found.solution.value <= found.trials["map@10"].max() + 1e-12
    reached = retrieval_values(found.fusion.join(known), target).corpus["map@10"]
    assert reached == pytest.approx(found.solution.value)


def test_two_are_searched_exactly() -> None:
    known, target = similarities()
    del known["poor"]
    found = search_retrieval(known, target, RetrievalOptions(rule="best"))
    exact = whole_curve(list(known.values()), target).best_value
    assert found.best_value == pytest.approx(exact)


def test_equal_weights_where_the_clips_cannot_tell() -> None:
    known, target = similarities()
    twins = {"a": known["a"], "b": known["a"].copy()}
    assert search_retrieval(twins, target, RetrievalOptions("auto")).fusion.weights == {"a": 0.5, "b": 0.5}


def test_a_retriever_that_is_better_alone_is_chosen_alone() -> None:
    rng = np.random.default_rng(0)
    known, target = similarities()
    known = {"a": np.eye(25)[target], "poor": rng.normal(size=known["a"].shape)}
    found = search_retrieval(known, target, RetrievalOptions("auto"))
    assert found.fusion.weights["a"] > 0.5
    single = found.systems[found.systems["retrievers"] == "a"]["cross_validated"].iloc[0]
    assert found.solution.cross_validated >= single


def test_the_normalisation_is_chosen_with_the_weights() -> None:
    known, target = similarities()
    known = {name: one * np.exp(np.linspace(0, 12, len(one)))[:, None] for name, one in known.items()}
    known["poor"] = known["poor"] * np.exp(np.linspace(12, 0, len(target)))[:, None]
    found = search_retrieval(known, target, RetrievalOptions("auto"))
    by_normalisation = found.systems.groupby("normalisation")["cross_validated"].max()
    assert found.solution.cross_validated >= by_normalisation[["none", "z"]].max()
    assert found.fusion.normalisation != "none"
    assert set(by_normalisation.index) == {"none", "z", "rank", "rrf"}


def solution(problem: str, held_out: np.ndarray) -> Solution:
    return Solution(problem, "prior", np.ones(1), held_out, held_out)


def test_ranks_are_taken_only_where_they_are_clearly_better() -> None:
    rng, kept = np.random.default_rng(0), {"scores": "z", "ranks": "rrf", "alone": "none"}
    held_out, noise = rng.random(100), rng.normal(size=100)
    noise -= noise.mean()
    scores, alone = solution("scores", held_out), solution("alone", held_out + 0.01)
    for lead, expected in ((0.15, "scores"), (0.25, "ranks")):  # the standard error is 0.1
        ranks = solution("ranks", held_out + lead + noise * np.sqrt(99 / (noise**2).sum()))
        assert careful_best([scores, ranks], kept).problem == expected
    assert careful_best([scores, alone], kept) is alone, "a single retriever that is better at all"
    assert careful_best([ranks], kept) is ranks, "nothing else was asked for"


def test_audio_to_text_has_weights_of_its_own() -> None:
    known, target = similarities()
    found = search_retrieval(known, target, RetrievalOptions(), "audio-to-text")
    assert sum(found.fusion.weights.values()) == pytest.approx(1)
    assert 0 < found.solution.value <= 1
    assert found.best_value >= found.solution.value


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
    with pytest.raises(RetrievalInputError, match="target of query 0 is 25"):
        search_retrieval({"a": known["a"]}, np.r_[clips, target[1:]], RetrievalOptions())


class RanksEverything(RetrievalProblem):
    """The same values with nothing left out: all similarities are fused and ranked under every weighting."""

    def of_clips(self, weights: np.ndarray) -> np.ndarray:
        fused = weighted_sum(self.scaled, weights)
        if not self.backwards:
            values = retrieval_values(fused[self.rows], self.columns).average_precision
            return np.bincount(self.clip_of, values, self.clips) * self.clips / len(values)
        of_all = values_of_clips(fused, self.described)
        return of_all[self.target[np.unique(self.clip_of, return_index=True)[1]]]


@pytest.mark.parametrize("direction", ["text-to-audio", "audio-to-text"])
def test_the_choice_is_that_of_ranking_everything(direction: Direction) -> None:
    known, target = similarities()
    rows = [one.T if direction == "audio-to-text" else one for one in known.values()]
    fast, slow = (
        compare({"all": kind(rows, target, "none", direction)}, NestedSearch(RULES, 3, 0, starts=2))
        for kind in (RetrievalProblem, RanksEverything)
    )
    for one, other in zip(fast.solutions, slow.solutions, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)
        np.testing.assert_allclose(one.values, other.values, atol=1e-12)
        np.testing.assert_allclose(one.held_out, other.held_out, atol=1e-12)
