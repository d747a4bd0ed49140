"""What members add, and taking them in one by one."""

from dataclasses import replace

import numpy as np
import pytest

from models.ensemble.candidate_table import CandidateTable
from models.selection.leave_one_out import (
    Budget,
    Group,
    choose_captions,
    forward_selection,
    leave_one_out,
    solve_captioning,
    solve_retrieval,
)
from models.selection.reranking_weights import RerankingOptions
from models.selection.retrieval_weights import RetrievalOptions

EVERYBODY = Group(("one", "two"), ("good", "noise"), "fluency")


def table(clips: int = 60) -> tuple[CandidateTable, np.ndarray]:
    """Captioner `two` says good things; retriever `good` sees which."""
    rng = np.random.default_rng(0)
    captioners = ["one"] * 3 + ["two"] * 3
    value = rng.random((clips, 6)) + np.array([0.0] * 3 + [0.5] * 3)
    decoder = rng.normal(size=(clips, 6))
    found = CandidateTable(
        texts=[[f"text {n}" for n in range(6)] for _ in range(clips)],
        captioners=[captioners] * clips,
        tokens=[[3] * 6] * clips,
        mask=np.ones((clips, 6), bool),
        scores={
            "encoder_score/good": value + 0.1 * rng.normal(size=value.shape),
            "encoder_score/noise": rng.normal(size=value.shape),
            "decoder_score": decoder,
        },
        fluency_error=np.zeros((clips, 6)),
    )
    return found, value


def test_a_useful_member_adds_and_a_useless_one_does_not() -> None:
    known, value = table()
    clips = np.arange(len(value))

    def values_of(group: Group) -> np.ndarray:
        reranking = solve_captioning(group, known, value, RerankingOptions())
        return value[clips, choose_captions(group, reranking, known)]

    members = ["one", "two", "good", "noise", "fluency"]
    found = leave_one_out(EVERYBODY, dict.fromkeys(members, ()), values_of(EVERYBODY), values_of, seed=0)
    added = {row.member: row for row in found}
    assert list(added) == members
    assert added["two"].comparison.ci95[0] > 0
    assert added["good"].comparison.ci95[0] > 0
    for useless in ("noise", "fluency"):
        low, high = added[useless].comparison.ci95
        assert low <= 0 <= high
    for row in added.values():
        assert row.value_without + row.comparison.delta == pytest.approx(values_of(EVERYBODY).mean())


def test_a_group_agrees_among_itself() -> None:
    known, value = table()
    scores = {**known.scores, "consensus_score/ngram": value, "consensus_score/good": value}
    known = replace(known, scores=scores)
    assert {"consensus/ngram", "consensus/good"} <= solve_captioning(
        EVERYBODY.without("noise"), known, value, RerankingOptions()
    ).weights.keys()
    alone = solve_captioning(EVERYBODY.without("two"), known, value, RerankingOptions())
    assert "consensus/good" not in alone.weights, "it compared with the texts of `two`"
    assert alone.weights["consensus/ngram"] == 0, "as texts of `one` are alike to each other, it says nothing"


def test_a_group_without_detector_filters_nothing() -> None:
    known, value = table()
    assert solve_captioning(EVERYBODY, known, value, RerankingOptions()).fluency_threshold == 0.9
    assert solve_captioning(EVERYBODY.without("fluency"), known, value, RerankingOptions()).fluency_threshold == 1


def test_forward_selection_takes_what_helps_most_and_keeps_the_budget() -> None:
    worth = {"one": 1.0, "two": 3.0, "good": 5.0, "noise": -1.0, "fluency": 0.5}
    sizes = {"one": 10, "two": 10, "good": 5, "noise": 1, "fluency": 2}
    needs = {"one": ["good"], "two": ["noise"]}

    def course(budget: int | None) -> list[tuple[list[str], float, float]]:
        budgets = {"size": Budget(sizes, budget)}
        steps = forward_selection(
            EVERYBODY, lambda group: sum(worth[name] for name in group.members), needs, budgets, ["one", "two"]
        )
        return [(step.added, step.costs["size"], step.value) for step in steps]

    assert course(None) == [
        (["one", "good"], 15, 6.0),
        (["two", "noise"], 26, 8.0),
        (["fluency"], 28, 8.5),
    ]
    assert course(20) == [(["one", "good"], 15, 6.0), (["fluency"], 17, 6.5), (["noise"], 18, 5.5)]
    assert course(5) == []


def test_every_budget_is_kept() -> None:
    sizes = dict.fromkeys(EVERYBODY.members, 1)
    seconds = {"one": 4.0, "two": 2.0, "good": 2.0, "noise": 1.0, "fluency": 1.0}
    budgets = {"size": Budget(sizes, 3), "seconds": Budget(seconds, 5.0)}
    steps = forward_selection(EVERYBODY, lambda group: len(group.members), {}, budgets, ["one", "two"])
    assert steps[0].added == ["one"]
    assert [step.costs for step in steps] == [{"size": 1, "seconds": 4.0}, {"size": 2, "seconds": 5.0}]


def test_a_token_ensemble_goes_with_any_of_its_members() -> None:
    everybody = Group(("one", "two", "joint"), ("good",))
    seen = []

    def values_of(group: Group) -> np.ndarray:
        seen.append(group.captioners)
        return np.zeros(4)

    dependents = {"one": ["joint"], "joint": [], "good": []}
    added = leave_one_out(everybody, dependents, np.ones(4), values_of, seed=0)
    assert seen == [("two",), ("one", "two"), ("one", "two", "joint")]
    assert [(row.member, row.dependents) for row in added] == [("one", ["joint"]), ("joint", []), ("good", [])]


def test_a_single_retriever_gets_all_the_weight() -> None:
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(10), 2)
    similarities = {name: rng.normal(size=(20, 10)) for name in ("a", "b")}
    fusion, _ = solve_retrieval(("b",), similarities, target, RetrievalOptions())
    assert fusion.weights == {"b": 1.0}
    np.testing.assert_array_equal(fusion.join(similarities), similarities["b"])
