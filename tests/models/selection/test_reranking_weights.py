"""Choosing captioners and weights on a table with known values."""

from dataclasses import replace

import numpy as np
import pytest

from models.ensemble.reranking import Reranking
from models.ensemble.score_arrays import NonFiniteScoreError
from models.selection.reranking_weights import (
    ENCODER_WEIGHT,
    RerankingOptions,
    encoder_share,
    mixtures_of,
    paper_weights,
    search_reranking,
    weigh_group,
)
from models.selection.rules import Comparison, NestedSearch, Solution
from models.selection.weight_problem import Explored, WeightProblem
from models.settings import Eligible, Fallback

from .test_leave_one_out import table


def test_mixtures_are_all_groups_the_whole_first() -> None:
    assert mixtures_of(["a", "b", "c"]) == [["a", "b", "c"], ["a", "b"], ["a", "c"], ["b", "c"], ["a"], ["b"], ["c"]]
    assert mixtures_of([str(n) for n in range(9)]) == [[str(n) for n in range(9)]]


def test_the_papers_weights() -> None:
    encoders = ["encoder_score/a", "encoder_score/b"]
    np.testing.assert_allclose(paper_weights([*encoders, "decoder_score"]), [0.35, 0.35, 0.3])
    np.testing.assert_allclose(paper_weights([*encoders, "decoder_score", "length_score"]), [0.35, 0.35, 0.3, 0])
    assert paper_weights(["decoder_score"]).tolist() == [1.0]
    assert paper_weights(["decoder_score", "length_score"]).tolist() == [1.0, 0.0]


def test_the_encoders_share_is_of_what_they_and_the_decoder_have() -> None:
    weights = {"a": 0.2, "b": 0.1, "decoder": 0.1, "length": 0.6}
    assert encoder_share(weights, ["a", "b"]) == pytest.approx(0.75)
    assert encoder_share({"a": 0.0, "decoder": 0.0, "length": 1.0}, ["a"]) == ENCODER_WEIGHT


@pytest.mark.parametrize("normalisation", ["none", "z", "rank", "softmax"])
@pytest.mark.parametrize("retrievers", [0, 1, 2])
@pytest.mark.parametrize("captioners", [["one", "two"], ["one"]])
@pytest.mark.parametrize("fallback", ["best", "most-fluent"])
def test_every_trial_is_what_the_bundle_would_choose(
    normalisation: str, retrievers: int, captioners: list[str], fallback: Fallback
) -> None:
    known, value = table(clips=25)
    error = np.random.default_rng(2).random(known.mask.shape)
    error[:10] = 0.91 + 0.09 * error[:10]  # the filter empties these clips
    known = replace(known, fluency_error=error)
    known = known.without_retrievers(["good", "noise"][retrievers:])
    options = RerankingOptions(normalisation, 0.9, fallback=fallback)
    found = search_reranking(known, value, [captioners], options)
    clips = np.arange(len(value))
    for trial in found.trials.sample(min(8, len(found.trials)), random_state=0).to_dict("records"):
        weights = {name: trial[name] for name in known.score_names}
        reranking = Reranking(
            weights=weights,
            normalisation=trial["normalisation"],
            captioners=trial["captioners"].split("+"),
            fallback=fallback,
        )
        assert value[clips, reranking.choose(known)].mean() == pytest.approx(trial["value"])
    assert value[clips, found.reranking.choose(known)].mean() == pytest.approx(found.solution.value)
    assert sum(map(abs, found.reranking.weights.values())) == pytest.approx(1)


def test_a_captioner_that_only_misleads_is_left_out() -> None:
    known, value = table(clips=120)
    known.decoder_score[:, :3] += 10  # `one` is sure of itself, and wrong
    for score in known.encoder_score.values():
        score[:, :3] += 10
    found = search_reranking(known, value, mixtures_of(["one", "two"]), RerankingOptions())
    assert found.reranking.captioners == ["two"]
    assert found.solution.value > 1


def test_where_nothing_matters_it_is_the_papers() -> None:
    known, value = table(clips=30)
    found = search_reranking(known, np.ones_like(value), mixtures_of(["one", "two"]), RerankingOptions())
    assert found.reranking.captioners == ["one", "two"]
    assert found.solution.rule == "prior"
    np.testing.assert_allclose(list(found.reranking.weights.values()), [0.35, 0.35, 0.3])
    assert found.solution.optimism == 0


def test_where_a_beam_is_better_than_all_choices_it_is_chosen() -> None:
    known, _ = table(clips=60)
    rng = np.random.default_rng(5)
    value = rng.random(known.mask.shape)  # no score knows which candidate is good
    value[:, 5] += 0.5
    known = replace(known, captioners=[[*["one"] * 3, *["two"] * 2, "two/beam"]] * 60)
    found = search_reranking(known, value, mixtures_of(["one", "two"]), RerankingOptions())
    assert found.reranking.captioners == ["two/beam"]
    assert (found.reranking.choose(known) == 5).all()
    alone = found.systems[found.systems["captioners"] == "two/beam"]
    assert alone["cross_validated"].tolist() == pytest.approx([value[:, 5].mean()])
    assert found.systems["chosen"].sum() == 1
    assert found.solution.cross_validated == found.systems["cross_validated"].max()


def test_only_the_kinds_of_scores_that_are_asked_for_are_weighed() -> None:
    known, value = table(clips=40)
    encoders = search_reranking(known, value, [["one", "two"]], RerankingOptions(scores=("encoder",)))
    assert set(encoders.reranking.weights) == {"good", "noise"}
    decoder = search_reranking(
        known, value, [["one", "two"]], RerankingOptions(scores=("decoder",), compare_groups=False)
    )
    assert decoder.reranking.weights == {"decoder": 1.0}
    np.testing.assert_array_equal(
        decoder.reranking.choose(known), np.where(known.mask, known.decoder_score, -np.inf).argmax(1)
    )
    prior = weigh_group(known, value, ["one"], RerankingOptions(scores=("length",), rule="prior"))
    assert prior.weights == {"decoder": 1.0}, "where none of them is there, the decoder's"


@pytest.mark.parametrize(("eligible", "places"), [("samples", {0, 1, 3, 4}), ("searched", {2, 5})])
def test_only_candidates_of_the_kind_that_is_asked_for_are_chosen(eligible: Eligible, places: set[int]) -> None:
    known, value = table(clips=40)
    known = replace(known, captioners=[["one", "one", "one/beam", "two", "two", "two/beam"]] * 40)
    options = RerankingOptions(eligible=eligible)
    for reranking in (
        search_reranking(known, value, mixtures_of(["one", "two"]), options).reranking,
        weigh_group(known, value, ["one", "two"], options),
    ):
        assert set(reranking.choose(known).tolist()) <= places


def test_totals_leave_out_whose_candidates_do_not_enter() -> None:
    known, _ = table(clips=4)
    reranking = Reranking(weights={"good": 0.5, "noise": 0.2, "decoder": 0.3}, normalisation="z", captioners=["two"])
    totals = reranking.totals(known)
    assert np.isnan(totals[:, :3]).all()
    np.testing.assert_array_equal(np.nanargmax(totals, 1), reranking.choose(known))


@pytest.mark.parametrize("normalisation", ["none", "z", "rank", "softmax"])
def test_clips_of_one_candidate_are_searched_like_others(normalisation: str) -> None:
    known, value = table(clips=12)
    alone = known.mask & (np.arange(6) < np.where(np.arange(12) % 2, 6, 1)[:, None])
    found = search_reranking(replace(known, mask=alone), value, [["one", "two"]], RerankingOptions(normalisation, 0.9))
    assert np.isfinite(found.trials["value"]).all()
    everywhere = search_reranking(
        replace(known, mask=known.mask & (np.arange(6) < 1)), value, [["one", "two"]], RerankingOptions(normalisation)
    )
    # nothing to choose: every weighting is worth the same, and the paper's are kept
    assert np.ptp(everywhere.trials["value"]) < 1e-12
    assert everywhere.solution.value == pytest.approx(value[:, 0].mean())
    assert list(everywhere.reranking.weights.values()) == pytest.approx([0.35, 0.35, 0.3])


def test_a_candidate_without_a_value_is_named() -> None:
    known, value = table(clips=12)
    value[7, 2] = np.nan
    with pytest.raises(NonFiniteScoreError, match="value of clip 7, candidate 2"):
        search_reranking(known, value, [["one", "two"]], RerankingOptions())


@pytest.mark.parametrize(("ahead", "taken"), [(0.5, ["one", "two"]), (1.5, ["two"])])
def test_a_captioner_alone_must_be_clearly_better(
    ahead: float, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out values are set so that `two` alone is ahead by a number of standard errors."""
    known, value = table(clips=50)
    noise = np.tile([0.1, -0.1], 25)

    def solve(self: NestedSearch, named: tuple[str, WeightProblem]) -> Comparison:
        name, problem = named
        gain = {"one+two": 0.0, "two": 0.1 * ahead / np.sqrt(50)}.get(name.partition(",")[0], -1.0)
        prior = problem.prior
        solution = Solution(name, "prior", prior, problem.of_clips(prior), gain + noise * (name != "one+two, none"))
        return Comparison([solution], {name: Explored(prior[None], np.zeros(1))})

    monkeypatch.setattr(NestedSearch, "solve", solve)
    found = search_reranking(known, value, mixtures_of(["one", "two"]), RerankingOptions())
    assert found.reranking.captioners == taken
    assert found.systems[found.systems["chosen"]]["captioners"].tolist() == ["+".join(taken)]
