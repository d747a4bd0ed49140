"""Each score is what it says, for a clip alone as among others, and finite whatever the candidates."""

from typing import Any

import numpy as np
import pytest

from models.ensemble.candidate_table import CandidateTable, score_candidates
from models.ensemble.reranking import Reranking
from models.ensemble.scores import rank
from models.ensemble.scores.base import MemberNames, Scorers
from models.ensemble.scores.registry import captioners_asked, compares_candidates, needed_columns, score_columns
from models.generation.candidates import Candidate

TEXTS = [
    ["a dog barks", "A dog barks loudly.", "rain falls", "a dog barks and a dog barks"],
    ["rain falls", "wind"],
    ["wind"],
]
REFERENCES = 9


class Words:
    """Stands for a retriever: embeds texts and clips at random, of unit length; counts what it is asked."""

    def __init__(self) -> None:
        self.embedded = 0

    def text_embeddings(self, texts: list[str]) -> np.ndarray:
        self.embedded += 1
        return np.stack([unit(1, sum(map(ord, text)))[0] for text in texts])

    def similarity(self, texts: np.ndarray, clips: np.ndarray) -> np.ndarray:
        return texts @ clips.T

    def pair_similarity(self, text: np.ndarray, texts: np.ndarray, audio: np.ndarray, clips: np.ndarray) -> np.ndarray:
        return np.einsum("pd,pd->p", text[texts], audio[clips])


class Detector:
    """Stands for a fluency detector: the longer, the worse."""

    def fluency_error(self, texts: list[str]) -> np.ndarray:
        return np.array([len(text) / 100 for text in texts])


def unit(rows: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(rows, 8))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


AUDIO = {name: unit(len(TEXTS), seed) for seed, name in enumerate(("bge", "bert"))}


def score(clips: slice = slice(None), columns: list[str] | None = None, **changes: Any) -> CandidateTable:
    """Score the candidates of some clips, of which `a` samples the first half and the search of `b` finds the rest."""
    texts = TEXTS[clips]
    said = [[Candidate(text, -float(len(text)), len(text.split()) + 1) for text in own] for own in texts]
    proposed: dict[str, list[list[Candidate]]] = {
        "a": [own[: (len(own) + 1) // 2] for own in said],
        "a/beam": [[] for _ in said],
        "b": [[] for _ in said],
        "b/beam": [own[len(own) // 2 :] for own in said],
    }
    by_name = {"a": 0.1, "b": 0.2}
    settings = {
        "retrievers": {name: Words() for name in AUDIO},
        "audio_embeddings": {name: audio[clips] for name, audio in AUDIO.items()},
        "detector": Detector(),
        "likelihoods": {n: [{t: -share * len(t) for t in own} for own in texts] for n, share in by_name.items()},
        "references": {name: np.concatenate([audio, unit(6, 7)]) for name, audio in AUDIO.items()},
    }
    return score_candidates(proposed, Scorers(**{**settings, **changes}), columns)


def test_columns_are_those_of_the_members_paper_first() -> None:
    expected = """encoder_score/bge encoder_score/bert decoder_score likelihood_score/a likelihood_score/b
        joint_score/mean joint_score/mixture consensus_score/ngram consensus_score/bge consensus_score/bert length_score
        origin_score/beam origin_score/a origin_score/b fluency_score rank_score/bge rank_score/bert"""
    assert list(score().scores) == expected.split()
    assert score_columns(MemberNames(["bge", "bert"], ["a", "b"], ["a", "b"])) == expected.split()
    alone = "decoder_score likelihood_score/a consensus_score/ngram length_score origin_score/beam fluency_score"
    assert score_columns(MemberNames([], ["a"], ["a"])) == alone.split()


def test_likelihoods_are_joined_as_a_product_and_as_a_mixture() -> None:
    scores = score().scores
    np.testing.assert_allclose(scores["likelihood_score/b"][0, :2], [-0.2 * 11, -0.2 * 19])
    np.testing.assert_allclose(scores["joint_score/mean"][0, 0], -0.15 * 11)
    np.testing.assert_allclose(scores["joint_score/mixture"][0, 0], np.log((np.exp(-1.1) + np.exp(-2.2)) / 2))


def ngram_cosine(one: str, other: str) -> float:
    """Compare two texts the plain way: the mean over n of the cosine of their n-gram counts."""
    found = []
    for n in range(1, 5):
        grams = [
            [tuple(words[at : at + n]) for at in range(len(words) - n + 1)] for words in (one.split(), other.split())
        ]
        counts = [np.array([own.count(gram) for gram in sorted({*grams[0], *grams[1]})], float) for own in grams]
        lengths = [np.linalg.norm(count) for count in counts]
        found.append(float(counts[0] @ counts[1] / (lengths[0] * lengths[1])) if all(lengths) else 0.0)
    return float(np.mean(found))


def test_consensus_is_the_mean_similarity_to_the_clips_other_candidates() -> None:
    table, retriever = score(), Words()
    for row, texts in enumerate(table.texts):
        plain = [text.lower().replace(".", "") for text in texts]
        vectors = retriever.text_embeddings(texts)
        for column in range(len(texts)):
            others = [other for other in range(len(texts)) if other != column]
            ngram = np.mean([ngram_cosine(plain[column], plain[other]) for other in others]) if others else 0
            cosine = np.mean([vectors[column] @ vectors[other] for other in others]) if others else 0
            assert table.scores["consensus_score/ngram"][row, column] == pytest.approx(ngram)
            assert table.scores["consensus_score/bge"][row, column] == pytest.approx(cosine)
    assert table.scores["consensus_score/ngram"][0].argmax() == 0, "what most of them say"


def test_origin_says_who_proposed_and_how() -> None:
    table = score()
    assert table.captioners == [["a", "a", "b/beam", "b/beam"], ["a", "b/beam"], ["a+b/beam"]]
    for column, expected in {"beam": [0, 0, 1, 1], "a": [1, 1, 0, 0], "b": [0, 0, 1, 1]}.items():
        assert table.scores[f"origin_score/{column}"][0].tolist() == expected
        assert table.scores[f"origin_score/{column}"][2, 0] == 1, "a text of both counts for both"


def test_length_and_fluency_are_of_the_text() -> None:
    table = score()
    assert table.scores["length_score"][0].tolist() == [4, 5, 3, 8]
    np.testing.assert_allclose(table.scores["fluency_score"], -table.fluency_error)
    assert not score(detector=None).scores["fluency_score"].any()


def test_rank_is_the_share_of_other_clips_that_fit_less(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, retriever = np.zeros((3, 4)), Words()
    references = np.concatenate([AUDIO["bge"], unit(6, 7)])
    for row, texts in enumerate(TEXTS):
        for column, text in enumerate(texts):
            similarity = references @ retriever.text_embeddings([text])[0]
            others = np.arange(REFERENCES) != row  # the first references are the clips themselves
            expected[row, column] = (similarity[others] < similarity[row]).mean()
    np.testing.assert_allclose(score().scores["rank_score/bge"], expected)
    monkeypatch.setattr(rank, "CANDIDATES_AT_ONCE", 2)
    np.testing.assert_allclose(score().scores["rank_score/bge"], expected)
    assert not score(references={}).scores["rank_score/bge"].any()
    assert rank.choose_references(3).tolist() == [0, 1, 2]
    assert len(rank.choose_references(5000)) == len(set(rank.choose_references(5000))) == rank.MOST_REFERENCES


@pytest.mark.parametrize("clip", range(len(TEXTS)))
def test_a_clip_has_the_same_scores_alone(clip: int) -> None:
    table, alone = score(), score(slice(clip, clip + 1))
    for column, values in alone.scores.items():
        np.testing.assert_allclose(values[0], table.scores[column][clip, : values.shape[1]], atol=1e-12)


def test_what_has_no_weight_is_not_computed() -> None:
    members = MemberNames(["bge"], ["a", "b"], ["a", "b"])
    paper = needed_columns(members, {"bge": 0.7, "decoder": 0.3, "joint/mean": 0.0, "rank/bge": 0.0})
    assert paper == ["encoder_score/bge", "decoder_score"]
    assert captioners_asked(paper, members) == []
    assert not compares_candidates(paper)
    assert captioners_asked(needed_columns(members, {"likelihood/b": 1.0}), members) == ["b"]
    assert captioners_asked(needed_columns(members, {"joint/mixture": -0.5}), members) == ["a", "b"]
    assert compares_candidates(needed_columns(members, {"consensus/bge": 1.0}))
    assert compares_candidates(needed_columns(members, {"origin/a": 1.0}))
    table = score(columns=paper, likelihoods={}, references={"bge": np.full((1, 1), np.nan)})
    assert list(table.scores) == paper


def test_each_text_is_embedded_once_for_all_scores() -> None:
    retrievers = {name: Words() for name in AUDIO}
    score(retrievers=retrievers)
    assert [one.embedded for one in retrievers.values()] == [1, 1]


def test_a_captioner_that_is_left_out_has_no_say() -> None:
    table = score()
    own = table.judged_by(["b"])
    gone = {"likelihood_score/a", "joint_score/mean", "joint_score/mixture", "origin_score/a", "origin_score/b"}
    assert list(own.scores) == [column for column in table.scores if column not in gone]
    assert list(table.judged_by(["a", "b"]).scores) == list(table.scores)
    third = score(
        likelihoods={n: [{t: -s * len(t) for t in c} for c in TEXTS] for n, s in zip("abc", (1, 2, 9), strict=True)}
    )
    np.testing.assert_allclose(third.judged_by(["a", "b"]).scores["joint_score/mean"][2, 0], -1.5 * len("wind"))
    weights = {"bge": 0.5, "decoder": 0.5}
    assert (Reranking(weights=weights).choose(own) == Reranking(weights=weights).choose(table)).all()


def test_consensus_of_some_captioners_is_that_of_their_candidates_alone() -> None:
    table = score()
    assert table.agreeing(["a", "b"]) is table, "nobody is left out"
    own, column = table.agreeing(["a"]), "consensus_score/ngram"
    assert [name for name in table.scores if name not in own.scores] == ["consensus_score/bge", "consensus_score/bert"]
    first, second = own.scores[column][0, :2]
    alone = score_candidates(
        {"a": [[Candidate(text, -1.0, 3) for text in clip[: (len(clip) + 1) // 2]] for clip in TEXTS]}, Scorers()
    )
    assert [first, second] == pytest.approx(alone.scores[column][0, :2])
    assert first != pytest.approx(table.scores[column][0, 0]), "among four it agrees with others"
    assert own.scores[column][1, 0] == 0, "its one candidate of this clip agrees with nobody"
    for name, values in own.scores.items():
        if name != column:
            np.testing.assert_array_equal(values, table.scores[name])
